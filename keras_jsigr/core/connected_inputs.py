"""Which inputs the outputs of a network have a gradient for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf


def connected_inputs(
    function: Callable[[Any], Any], x: Any, positions: list[int]
) -> list[int]:
    """Leave out the inputs that are read as indices, as an `Embedding` does.

    A subclassed model does not tell the dtype of its inputs: tokens look like floats,
    but have no gradient, whatever their values.

    Args:
        function: From inputs to a tensor.
        x: Inputs in any structure.
        positions: Positions of float tensors among the flattened inputs.

    Returns:
        Those of the positions that have a gradient; all, where TensorFlow lacks the
        derivative of an operation.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.core.connected_inputs import connected_inputs
        >>> table, x = tf.eye(3), [tf.zeros(1), tf.zeros(1)]
        >>> connected_inputs(
        ...     lambda x: x[0] + tf.gather(table, tf.cast(x[1], tf.int32)), x, [0, 1]
        ... )
        [0]
    """
    leaves = list(keras.tree.flatten(x))
    inputs = [leaves[index] for index in positions]
    try:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(inputs)
            outputs = function(x)
        gradients = tape.gradient(outputs, inputs)
    except LookupError:
        return positions
    pairs = zip(positions, gradients, strict=True)
    return [index for index, gradient in pairs if gradient is not None]
