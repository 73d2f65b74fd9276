"""Weights and inputs at which nothing holds by chance."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
import tensorflow as tf


@contextmanager
def generic_weights(model: keras.Model) -> Iterator[None]:
    """Let a model have random weights inside the block.

    What is tried on a model in order to learn how it is built must not hold by chance:
    a head that starts at zero hides all that comes before it. The weights are of the
    size that keeps signals as large as they are, those of one axis lie in 0.5..1.5: a
    variance may be among them. Integers stay. The model itself is not touched.

    Args:
        model: A built Keras model.

    Yields:
        Nothing.

    Example:
        >>> import keras, numpy as np
        >>> from keras_jsigr.core.generic import generic_weights
        >>> layer = keras.layers.Dense(1, kernel_initializer="zeros")
        >>> net = keras.Sequential([keras.Input((2,)), layer])
        >>> with generic_weights(net):
        ...     bool(net(np.ones((1, 2)))[0, 0] == 0.0)
        False
    """
    values = [
        (variable, _values(variable, index))
        for index, variable in enumerate(model.weights)
        if "float" in keras.backend.standardize_dtype(variable.dtype)
    ]
    with keras.StatelessScope(state_mapping=values):
        yield


def generic_inputs(probe: Any) -> Any:
    """Return random inputs of the shapes and dtypes of others.

    Args:
        probe: A batch of inputs, tensors or arrays in any structure.

    Returns:
        Tensors uniform in 0..1 in the same structure; of another kind than floats,
        which may be indices, the same inputs.

    Example:
        >>> import numpy as np
        >>> from keras_jsigr.core.generic import generic_inputs
        >>> bool((generic_inputs(np.zeros((2, 3))).numpy() > 0).all())
        True
    """

    def drawn(x: Any) -> Any:
        x = tf.convert_to_tensor(x)
        if not x.dtype.is_floating:
            return x
        return tf.cast(tf.random.stateless_uniform(tf.shape(x), (0, 1)), x.dtype)

    return keras.tree.map_structure(drawn, probe)


def _values(variable: Any, index: int) -> tf.Tensor:
    shape, low, high = tuple(variable.shape), 0.5, 1.5
    if len(shape) > 1:
        # The kernels of depthwise convolutions have their multiplier last.
        inputs = shape[:-2] if shape[-1] == 1 and len(shape) > 2 else shape[:-1]
        high = math.sqrt(6.0 / max(1, math.prod(inputs)))  # as He's, for ReLU
        low = -high
    drawn = tf.random.stateless_uniform(shape, (0, index), low, high)
    return tf.cast(drawn, keras.backend.standardize_dtype(variable.dtype))
