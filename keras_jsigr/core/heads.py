"""The softmax or sigmoid head of a classifier: found, and seen behind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf

from keras_jsigr.core.inputs import random_inputs_like, random_weights
from keras_jsigr.core.keras_compat import (
    altered_layers,
    compiled_losses,
    layer_calls,
    leaf_layers,
)
from keras_jsigr.core.scores import HeadKind
from keras_jsigr.core.variables import stateless

# Farther and farther from the data, on both sides.
_SCALES = (10.0, -10.0, 1e2, -1e2, 1e3, -1e3, 1e4, -1e4)


def looks_like_probabilities(outputs: Any) -> bool:
    """Tell whether rows `(B, C)` with `C > 1` are non-negative and sum to one."""
    outputs = tf.convert_to_tensor(outputs)
    half = outputs.dtype in (tf.float16, tf.bfloat16)
    p = np.asarray(tf.cast(outputs, tf.float32))
    if p.ndim != 2 or p.shape[1] < 2:
        return False
    p = p[~np.isnan(p).any(axis=1)]
    return bool(
        len(p) > 0
        and np.all(p >= 0.0)
        and np.allclose(p.sum(-1), 1.0, rtol=0.0, atol=1e-2 if half else 1e-4)
    )


def saturates(model: Callable[..., Any], probe: Any, outputs: Any) -> bool:
    """Tell whether a single output goes from zero to one and never beyond."""
    if outputs.shape[1] != 1 or not _in_unit_interval(outputs):
        return False
    seen = []
    for scale in _SCALES:
        far = keras.tree.map_structure(partial(_scaled, scale), probe)
        seen.append(np.asarray(tf.cast(model(far), tf.float32)))
    found = np.concatenate(seen)
    return bool(_in_unit_interval(found) and found.min() < 0.01 and found.max() > 0.99)


def _scaled(scale: float, leaf: Any) -> Any:
    leaf = tf.convert_to_tensor(leaf)
    return leaf * tf.cast(scale, leaf.dtype) if leaf.dtype.is_floating else leaf


def _in_unit_interval(outputs: Any) -> bool:
    values = np.asarray(tf.cast(outputs, tf.float32))
    return bool(np.all((values >= 0.0) & (values <= 1.0)))


@dataclass(frozen=True)
class Head:
    """The last activation of a classifier and the layer that applies it."""

    kind: Literal["linear", "softmax", "sigmoid"]
    layer: keras.Layer | None = None

    def activate(self, logits: tf.Tensor) -> tf.Tensor:
        """Apply the head's activation to logits `(B, C)`."""
        return keras.activations.get(self.kind)(logits)

    @contextmanager
    def removed(self) -> Iterator[None]:
        """Let the model return logits inside the block, for this thread alone."""
        if self.layer is None:
            yield
        elif isinstance(self.layer, keras.layers.Softmax):
            with layer_calls([self.layer], _return_inputs):
                yield
        else:
            linear = {"activation": keras.activations.linear}
            with altered_layers([self.layer], lambda _: linear):
                yield


def _return_inputs(layer: Any, call: Any, inputs: Any, mask: Any = None) -> Any:
    return inputs


def _candidate_kind(layer: keras.Layer) -> Literal["softmax", "sigmoid"] | None:
    if isinstance(layer, keras.layers.Softmax):
        return "softmax" if layer.axis in (-1, 1) else None
    # By name, so that tf.nn.softmax counts too; `find_head` verifies by numbers.
    name = getattr(getattr(layer, "activation", None), "__name__", "")
    if "softmax" in name:
        return "softmax"
    return "sigmoid" if "sigmoid" in name else None


def find_head(model: keras.Model, probe: Any) -> Head:
    """Find the softmax or sigmoid head of a classifier by trying it."""
    outputs = _ask(model, probe)
    if not tf.is_tensor(outputs) or outputs.shape.rank != 2:
        shapes = keras.tree.map_structure(lambda t: tuple(t.shape), outputs)
        raise ValueError(
            f"`{model.name}` is not a classifier with one output: got {shapes}, "
            "expected one tensor (B, C) of logits or probabilities. "
            "Take one of several outputs, `keras.Model(model.inputs, "
            "model.outputs[0])`; to attack or explain it, `lambda x: model(x)[0]` does."
        )
    for layer in reversed(leaf_layers(model)):
        kind = _candidate_kind(layer)
        if kind is None:
            continue
        if _is_head(Head(kind, layer), model, probe, outputs):
            return Head(kind, layer)
    if looks_like_probabilities(outputs) or saturates(partial(_ask, model), probe, outputs):
        name = "softmax" if outputs.shape[1] > 1 else "sigmoid"
        raise ValueError(
            f"`{model.name}` returns probabilities, but none of its layers ends in a {name}. "
            f"Return logits, or make the {name} the activation of the last layer or a layer of its "
            "own; to attack or explain it as it is, pass `lambda x: model(x)`."
        )
    return Head("linear")


def head_of(model: keras.Model, probe: Any) -> Head:
    """Return the head that a hardened model knows, or find that of another model."""
    own = getattr(model, "head", None)  # of another model, a layer may have the name
    return own if isinstance(own, Head) else find_head(model, probe)


def _ask(model: keras.Model, x: Any) -> Any:
    """Return a model's inference outputs; each time its random layers draw the same."""
    with stateless():
        return model(x, training=False)


def _is_head(head: Head, model: keras.Model, probe: Any, outputs: tf.Tensor) -> bool:
    """Try whether a model without an activation is what the activation is of."""
    with head.removed():
        logits = _ask(model, probe)
    if logits.shape != outputs.shape:
        return False
    told = bool(tf.reduce_all(tf.math.is_finite(outputs)))
    if told and not close(head.activate(outputs), outputs):
        return close(head.activate(logits), outputs)
    # Outputs that the activation leaves alone tell nothing, and NaN as little.
    anything = random_inputs_like(probe)
    with random_weights(model):
        outputs = _ask(model, anything)
        with head.removed():
            logits = _ask(model, anything)
    return close(head.activate(logits), outputs)


def close(a: tf.Tensor, b: tf.Tensor) -> bool:
    """Tell whether two ways to compute a model's outputs agree, up to rounding."""
    tolerance = 1e-5 if b.dtype in (tf.float32, tf.float64) else 1e-2
    return bool(np.allclose(tf.cast(a, "float32"), tf.cast(b, "float32"), 0, tolerance))


def head_kind(model: keras.Model, head: Head, classes: int) -> HeadKind:
    """Tell whether the classes exclude each other."""
    if head.kind != "linear":
        return head.kind
    if classes == 1:
        return "sigmoid"
    said = getattr(model, "multi_label", None)
    if said is not None and isinstance(getattr(model, "head", None), Head):
        return "sigmoid" if said else "softmax"
    return kind_of_losses(model) or "softmax"


_INDEPENDENT = (
    keras.losses.binary_crossentropy,
    keras.losses.binary_focal_crossentropy,
    keras.losses.hinge,
    keras.losses.squared_hinge,
)


def kind_of_losses(model: keras.Model) -> HeadKind | None:
    """Tell what the compiled losses say of the classes; `None`: they are not Keras'."""
    losses = [keras.losses.get(loss) for loss in compiled_losses(model)]
    functions = [getattr(loss, "fn", loss) for loss in losses]
    if any(function in _INDEPENDENT for function in functions):
        return "sigmoid"
    known = [getattr(f, "__module__", "").startswith("keras.") for f in functions]
    return "softmax" if known and all(known) else None


def ignored_labels(model: keras.Model) -> list[int]:
    """List the labels whose examples the compiled losses leave out."""
    labels = [getattr(x, "ignore_class", None) for x in compiled_losses(model)]
    return [label for label in labels if label is not None]


def averages_over_weights(model: keras.Model) -> bool:
    """Tell whether a compiled loss is the mean over the weights of the examples."""
    reductions = [getattr(loss, "reduction", None) for loss in compiled_losses(model)]
    return "mean_with_sample_weight" in reductions
