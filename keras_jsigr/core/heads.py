"""The softmax or sigmoid head of a classifier: found, and seen behind."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf

from keras_jsigr.core.generic import generic_inputs, generic_weights
from keras_jsigr.core.keras_private import leaf_layers
from keras_jsigr.core.probabilities import looks_like_probabilities, saturates

_LOCK = threading.RLock()
_OPEN: dict[int, list[Any]] = {}


@dataclass(frozen=True)
class Head:
    """The last activation of a classifier and the layer that applies it.

    Attributes:
        kind: `"softmax"`, `"sigmoid"`, or `"linear"` when the model returns logits.
        layer: The layer that applies the activation; `None` when linear.
    """

    kind: Literal["linear", "softmax", "sigmoid"]
    layer: keras.Layer | None = None

    def activate(self, logits: tf.Tensor) -> tf.Tensor:
        """Apply the head's activation to logits `(B, C)`.

        With Keras' own function, for Keras' losses find the logits behind its results.
        """
        return keras.activations.get(self.kind)(logits)

    @contextmanager
    def removed(self) -> Iterator[None]:
        """Let the model return logits inside the block.

        The layer's own `activation` is set to linear and set back, so the weights, the
        layer and the model stay the same objects. Blocks nest and run in several
        threads (the replicas of a distribution strategy).

        Yields:
            Nothing.
        """
        if self.layer is None:
            yield
            return
        layer, key = self.layer, id(self.layer)
        with _LOCK:
            state = _OPEN.setdefault(key, [0, None])
            if state[0] == 0:
                state[1] = _make_linear(layer)
            state[0] += 1
        try:
            yield
        finally:
            with _LOCK:
                state[0] -= 1
                if state[0] == 0:
                    state[1]()
                    del _OPEN[key]


def _make_linear(layer: keras.Layer) -> Callable[[], None]:
    """Switch the layer's activation off; return what switches it on again."""
    if isinstance(layer, keras.layers.Softmax):
        # A Softmax layer has no activation to exchange: shadow its `call`.
        object.__setattr__(layer, "call", lambda inputs, mask=None: inputs)
        return lambda: object.__delattr__(layer, "call")
    before = layer.activation
    layer.activation = keras.activations.linear

    def restore() -> None:
        layer.activation = before

    return restore


def _candidate_kind(layer: keras.Layer) -> Literal["softmax", "sigmoid"] | None:
    if isinstance(layer, keras.layers.Softmax):
        return "softmax" if layer.axis in (-1, 1) else None
    # By name, so that tf.nn.softmax counts too; `find_head` verifies by numbers.
    name = getattr(getattr(layer, "activation", None), "__name__", "")
    if "softmax" in name:
        return "softmax"
    return "sigmoid" if "sigmoid" in name else None


def find_head(model: keras.Model, probe: Any) -> Head:
    """Find the softmax or sigmoid head of a classifier by trying it.

    A layer is the head if the model without its activation, followed by that
    activation, gives the model's own outputs. So it works for Functional, Sequential
    and subclassed models alike, and an inner sigmoid (a gate) is never taken for it.

    Args:
        model: A built Keras classifier with one output `(B, C)`.
        probe: A batch of inputs as `model` takes them.

    Returns:
        The head; `kind="linear"` if the model returns logits.

    Raises:
        ValueError: If there is not one output `(B, C)`, or if the outputs are
            probabilities that no layer of the model accounts for.

    Example:
        >>> import keras, numpy as np
        >>> from keras_jsigr.core.heads import find_head
        >>> net = keras.Sequential(
        ...     [keras.Input((2,)), keras.layers.Dense(3, activation="softmax")]
        ... )
        >>> find_head(net, np.zeros((1, 2), "float32")).kind
        'softmax'
    """
    outputs = model(probe, training=False)
    if not tf.is_tensor(outputs) or outputs.shape.rank != 2:
        shapes = keras.tree.map_structure(lambda t: tuple(t.shape), outputs)
        raise ValueError(
            f"`{model.name}` is not a classifier with one output: got {shapes}, "
            "expected one tensor (B, C) of logits or probabilities. "
            "Harden a model that ends in its class scores."
        )
    for layer in reversed(leaf_layers(model)):
        kind = _candidate_kind(layer)
        if kind is None:
            continue
        if _is_head(Head(kind, layer), model, probe, outputs):
            return Head(kind, layer)
    if looks_like_probabilities(outputs) or saturates(
        partial(model, training=False), probe, outputs
    ):
        name = "softmax" if outputs.shape[1] > 1 else "sigmoid"
        raise ValueError(
            f"`{model.name}` returns probabilities, but none of its layers ends in a "
            f"{name}. Return logits, or make the {name} the activation of the last "
            f"layer or a layer of its own."
        )
    return Head("linear")


def head_of(model: keras.Model, probe: Any) -> Head:
    """Return the head that a hardened model knows, or find that of another model.

    Args:
        model: A built Keras classifier, hardened or not.
        probe: A batch of inputs as `model` takes them.

    Returns:
        The head.

    Raises:
        ValueError: As `find_head`.

    Example:
        >>> import keras, numpy as np
        >>> from keras_jsigr.core.heads import head_of
        >>> net = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
        >>> head_of(net, np.zeros((1, 2), "float32")).kind
        'linear'
    """
    own = getattr(model, "head", None)  # of another model, a layer may have the name
    return own if isinstance(own, Head) else find_head(model, probe)


def _is_head(head: Head, model: keras.Model, probe: Any, outputs: tf.Tensor) -> bool:
    """Try whether a model without an activation is what the activation is of."""
    with head.removed():
        logits = model(probe, training=False)
    if logits.shape != outputs.shape:
        return False
    told = bool(tf.reduce_all(tf.math.is_finite(outputs)))
    if told and not close(head.activate(outputs), outputs):
        return close(head.activate(logits), outputs)
    # Outputs that the activation leaves alone, as those of a head that starts at zero,
    # tell nothing, and NaN as little.
    anything = generic_inputs(probe)
    with generic_weights(model):
        outputs = model(anything, training=False)
        with head.removed():
            logits = model(anything, training=False)
    return close(head.activate(logits), outputs)


def close(a: tf.Tensor, b: tf.Tensor) -> bool:
    """Tell whether two ways to compute a model's outputs agree, up to rounding.

    Args:
        a: Float `(B, C)`.
        b: Like `a`; its dtype says how much rounding may do.

    Returns:
        True if no entry differs by more than 1e-5, or 1e-2 in half precision.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.core.heads import close
        >>> close(tf.ones((1, 2)), tf.ones((1, 2)) + 1e-7)
        True
    """
    tolerance = 1e-5 if b.dtype in (tf.float32, tf.float64) else 1e-2
    return bool(np.allclose(tf.cast(a, "float32"), tf.cast(b, "float32"), 0, tolerance))
