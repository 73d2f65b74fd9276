"""The steps of a sequence that a `Masking` layer leaves out stay left out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_jsigr.core.generic import generic_inputs
from keras_jsigr.core.keras_private import leaf_layers
from keras_jsigr.core.layer_calls import layer_calls
from keras_jsigr.core.logits import LogitsFn


def padding_values(model: keras.Model) -> list[float]:
    """List what the `Masking` layers of a model take for padding.

    Args:
        model: A Keras model.

    Returns:
        The mask values, each once; empty without such layers.

    Example:
        >>> import keras
        >>> from keras_jsigr.core.padding import padding_values
        >>> net = keras.Sequential(
        ...     [keras.Input((3, 2)), keras.layers.Masking(), keras.layers.LSTM(2)]
        ... )
        >>> padding_values(net)
        [0.0]
    """
    return list(dict.fromkeys(float(each.mask_value) for each in _masking(model)))


def padding_of_inputs(
    model: keras.Model, probe: Any, positions: list[int]
) -> list[list[float]]:
    """List what the `Masking` layers take for padding in each input.

    Found by trying: a value is padding in an input if a layer that masks it sees steps
    of nothing else when the input is of nothing else. Zeros of an image beside a masked
    sequence are no padding, nor are those that a `Rescaling` turns into others.

    Args:
        model: A built Keras model.
        probe: A batch of its inputs, in any structure.
        positions: Positions of float tensors among the flattened inputs.

    Returns:
        For each of the positions its values, each once.

    Example:
        >>> import keras, numpy as np
        >>> from keras_jsigr.core.padding import padding_of_inputs
        >>> image, sequence = keras.Input((4, 4, 1)), keras.Input((3, 2))
        >>> seen = keras.layers.Flatten()(image)
        >>> read = keras.layers.LSTM(2)(keras.layers.Masking()(sequence))
        >>> outputs = keras.layers.Concatenate()([seen, read])
        >>> net = keras.Model([image, sequence], keras.layers.Dense(3)(outputs))
        >>> padding_of_inputs(net, [np.ones((1, 4, 4, 1)), np.ones((1, 3, 2))], [0, 1])
        [[], [0.0]]
    """
    layers = _masking(model)
    if not layers:
        return [[] for _ in positions]
    leaves = keras.tree.flatten(generic_inputs(probe))

    def masks(value: float, index: int) -> bool:
        moved, found = list(leaves), []

        def see(
            layer: keras.Layer, call: Any, x: Any, *args: Any, **kwargs: Any
        ) -> Any:
            if layer.mask_value == value:
                steps = tf.reduce_all(tf.equal(x, tf.cast(value, x.dtype)), -1)
                found.append(bool(tf.reduce_any(steps)))
            return call(x, *args, **kwargs)

        moved[index] = tf.fill(
            tf.shape(moved[index]), tf.cast(value, moved[index].dtype)
        )
        with layer_calls(layers, see):
            model(keras.tree.pack_sequence_as(probe, moved), training=False)
        return any(found)

    return [[v for v in padding_values(model) if masks(v, i)] for i in positions]


def _masking(model: keras.Model) -> list[keras.layers.Masking]:
    layers = leaf_layers(model)
    return [each for each in layers if isinstance(each, keras.layers.Masking)]


def leave_padding(moved: Any, x: Any, values: Sequence[float]) -> Any:
    """Undo a move of the inputs at the steps that are padding.

    Any move would make them steps to look at, and sequences longer than they are.

    Args:
        moved: Float tensor `(B, *S)`: the inputs elsewhere.
        x: The inputs, of this shape and dtype.
        values: Of `padding_values`. A step is padding if all its features are one.

    Returns:
        Float tensor `(B, *S)`.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.core.padding import leave_padding
        >>> x = tf.constant([[[1.0, 0.0], [0.0, 0.0]]])
        >>> leave_padding(x + 0.5, x, [0.0]).numpy().tolist()
        [[[1.5, 0.5], [0.0, 0.0]]]
    """
    for value in values:
        padding = tf.reduce_all(tf.equal(x, tf.cast(value, x.dtype)), -1, keepdims=True)
        moved = tf.where(padding, x, moved)
    return moved


def without_padding(model: Any, logits_fn: LogitsFn) -> Callable[[Any], LogitsFn]:
    """Return what makes, of a batch, the logits of copies moved beside its padding.

    Args:
        model: A Keras model; a callable has no padding to know of.
        logits_fn: Its logits, from `as_logits`.

    Returns:
        A function from inputs `(B, *S)` to a function from `(k B, *S)`, k copies of
        them moved, to logits `(k B, C)`; the same as `logits_fn` without padding.

    Example:
        >>> import keras, tensorflow as tf
        >>> from keras_jsigr.core.padding import without_padding
        >>> net = keras.Sequential([keras.Input((3, 2)), keras.layers.Masking()])
        >>> x = tf.constant([[[1.0, 0.0], [0.0, 0.0]]])
        >>> logits_of = without_padding(net, lambda x: tf.reduce_sum(x, 1))(x)
        >>> logits_of(x + 0.5).numpy().tolist()
        [[1.5, 0.5]]
    """
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
