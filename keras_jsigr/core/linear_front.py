"""A classifier cut behind its first layer, where that layer is linear."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_jsigr.core.as_float import as_float
from keras_jsigr.core.folded_norms import LINEAR_LAYERS
from keras_jsigr.core.generic import generic_inputs, generic_weights
from keras_jsigr.core.keras_private import leaf_layers
from keras_jsigr.core.layer_calls import layer_calls
from keras_jsigr.core.logits import LogitsFn


@dataclass(frozen=True)
class Front:
    """What a classifier does first, up to where it stops being affine.

    The features `L(x) = W x + b` of the first layer, before its activation, stand for
    the input: those of `x + n` are `L(x) + L(n) - L(0)`, those on the way from `a` to
    `x` lie between `L(a)` and `L(x)`, and a sum of gradients `dz/dx` is one product
    `W^T sum_k dz/dL_k`. So many copies of an input cost the first layer once.

    Attributes:
        logits_fn: Maps inputs to logits `(B, C)`.
        layer: The first layer; `None` means none was found: features are inputs.
    """

    logits_fn: LogitsFn
    layer: keras.Layer | None = None

    def __call__(self, x: Any) -> tf.Tensor:
        """Return the logits `(B, C)` of inputs `(B, *S)`."""
        return self.logits_fn(x)

    def features(self, x: tf.Tensor) -> tf.Tensor:
        """Return the features of inputs, `(B, *F)`."""
        if self.layer is None:
            return x
        seen: list[tf.Tensor] = []

        def see(layer: Any, call: Any, *args: Any, **kwargs: Any) -> tf.Tensor:
            activation = layer.activation
            layer.activation = keras.activations.linear
            try:
                seen.append(call(*args, **kwargs))
            finally:
                layer.activation = activation
            return activation(seen[-1])

        with layer_calls([self.layer], see):
            self.logits_fn(x)
        return seen[-1]

    def moved(self, step: tf.Tensor) -> tf.Tensor:
        """Return by what a step `(B, *S)` moves the features, `W step`."""
        if self.layer is None:
            return step
        return self.features(step) - self.features(tf.zeros_like(step[:1]))

    def logits(self, features: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
        """Return the logits of features.

        Args:
            features: `(B, *F)`.
            x: Any inputs `(?, *S)`; only their shape and dtype count.

        Returns:
            `(B, C)`.
        """
        if self.layer is None:
            return self.logits_fn(features)

        def put(layer: Any, *_: Any, **__: Any) -> tf.Tensor:
            return layer.activation(features)

        shape = tf.concat([tf.shape(features)[:1], tf.shape(x)[1:]], axis=0)
        blank = tf.ensure_shape(tf.zeros(shape, x.dtype), (None, *x.shape[1:]))
        with layer_calls([self.layer], put):
            return self.logits_fn(blank)

    def pull(self, cotangent: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
        """Return `W^T cotangent`, `(B, *S)` of the dtype of the inputs `x`."""
        if self.layer is None:
            return tf.cast(cotangent, x.dtype)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(x)
            features = self.features(x)
        return tape.gradient(features, x, tf.cast(cotangent, features.dtype))


def find_front(model: Any, logits_fn: LogitsFn, probe: Any) -> Front:
    """Find the linear layer that all of the input goes through first.

    It is tried: the logits must follow from its features alone, whatever the input and
    the weights.

    Args:
        model: A Keras model, or a callable, whose front is empty.
        logits_fn: Its logits, from `as_logits`.
        probe: A batch of inputs `(B, *S)`.

    Returns:
        The front, itself a function from inputs to logits.

    Example:
        >>> import keras, numpy as np
        >>> from keras_jsigr.core.linear_front import find_front
        >>> layers = [keras.layers.Dense(3, activation="silu"), keras.layers.Dense(2)]
        >>> net = keras.Sequential([keras.Input((2,)), *layers])
        >>> front = find_front(net, lambda x: net(x), np.ones((1, 2), "float32"))
        >>> front.layer is layers[0]
        True
    """
    nothing = Front(logits_fn)
    if not isinstance(model, keras.Model) or not tf.executing_eagerly():
        return nothing
    x = generic_inputs(as_float(tf.convert_to_tensor(probe)))
    fed: list[keras.Layer] = []

    def see(layer: Any, call: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        if inputs is x:  # The very tensor: what looks like it may be a ReLU of it.
            fed.append(layer)
        return call(inputs, *args, **kwargs)

    linear = [layer for layer in leaf_layers(model) if type(layer) in LINEAR_LAYERS]
    with generic_weights(model), layer_calls(linear, see):
        expected = logits_fn(x)
    if len(fed) != 1 or fed[0].compute_dtype not in ("float32", "float64"):
        return nothing
    front = Front(logits_fn, fed[0])
    with generic_weights(model):
        got = front.logits(front.features(x), x)
    same = np.allclose(got, expected, rtol=1e-5, atol=1e-5)
    return front if same else nothing
