"""The steps of a sequence that a `Masking` layer leaves out stay left out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_jsigr.core.inputs import random_inputs_like
from keras_jsigr.core.keras_compat import layer_calls, leaf_layers
from keras_jsigr.core.logits import LogitsFn


def padding_values(model: keras.Model) -> list[float]:
    """List what the `Masking` layers of a model take for padding."""
    return list(dict.fromkeys(float(each.mask_value) for each in _masking(model)))


def padding_of_inputs(model: keras.Model, probe: Any, positions: list[int]) -> list[list[float]]:
    """List what the `Masking` layers take for padding in each input."""
    layers = _masking(model)
    if not layers:
        return [[] for _ in positions]
    leaves = keras.tree.flatten(random_inputs_like(probe))

    def masks(value: float, index: int) -> bool:
        moved, found = list(leaves), []

        def see(layer: keras.Layer, call: Any, x: Any, *args: Any, **kwargs: Any) -> Any:
            if layer.mask_value == value:
                steps = tf.reduce_all(tf.equal(x, tf.cast(value, x.dtype)), -1)
                found.append(bool(tf.reduce_any(steps)))
            return call(x, *args, **kwargs)

        moved[index] = tf.fill(tf.shape(moved[index]), tf.cast(value, moved[index].dtype))
        with layer_calls(layers, see):
            model(keras.tree.pack_sequence_as(probe, moved), training=False)
        return any(found)

    return [[v for v in padding_values(model) if masks(v, i)] for i in positions]


def _masking(model: keras.Model) -> list[keras.layers.Masking]:
    layers = leaf_layers(model)
    return [each for each in layers if isinstance(each, keras.layers.Masking)]


def leave_padding(moved: Any, x: Any, values: Sequence[float]) -> Any:
    """Undo a move of the inputs at the steps that are padding."""
    for value in values:
        padding = tf.reduce_all(tf.equal(x, tf.cast(value, x.dtype)), -1, keepdims=True)
        moved = tf.where(padding, x, moved)
    return moved


def without_padding(model: Any, logits_fn: LogitsFn) -> Callable[[Any], LogitsFn]:
    """Return what makes, of a batch, the logits of copies moved beside its padding."""
    values = padding_values(model) if isinstance(model, keras.Model) else []
    if not values:
        return lambda x: logits_fn

    def beside(x: Any) -> LogitsFn:
        def logits(moved: Any) -> tf.Tensor:
            copies = tf.shape(moved)[0] // tf.maximum(tf.shape(x)[0], 1)
            origin = tf.tile(x, (copies, *[1] * (x.shape.rank - 1)))
            origin = tf.ensure_shape(tf.cast(origin, moved.dtype), moved.shape)
            return logits_fn(leave_padding(moved, origin, values))

        return logits

    return beside
