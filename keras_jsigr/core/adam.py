"""Adam on tensors, for variables that live inside a loop."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

_FIRST, _SECOND, _EPSILON = 0.9, 0.999, 1e-8


class Adam(NamedTuple):
    """Hold the variable and the running means of its gradient.

    Attributes:
        w: Float `(B, *S)`, the variable.
        mean: Like `w`, of the gradient.
        square: Like `w`, of its square.
    """

    w: tf.Tensor
    mean: tf.Tensor
    square: tf.Tensor


def adam_start(w: tf.Tensor) -> Adam:
    """Return the state before the first step.

    Args:
        w: Float `(B, *S)`, the variable.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.core.adam import adam_start
        >>> adam_start(tf.ones((1, 1))).mean.numpy().tolist()
        [[0.0]]
    """
    return Adam(w, tf.zeros_like(w), tf.zeros_like(w))


def adam_step(
    state: Adam, gradient: tf.Tensor, step: tf.Tensor, learning_rate: float
) -> Adam:
    """Move against the gradient by about the learning rate per component.

    Args:
        state: What the last step returned.
        gradient: Like `state.w`.
        step: Int32 scalar, from zero.
        learning_rate: Length of a step.

    Returns:
        The new state.

    Reference:
        arXiv 1412.6980, algorithm 1.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.core.adam import adam_start, adam_step
        >>> state = adam_start(tf.zeros((1, 2)))
        >>> state = adam_step(state, tf.constant([[4.0, -0.5]]), tf.constant(0), 0.25)
        >>> state.w.numpy().round(4).tolist()
        [[-0.25, 0.25]]
    """
    # In float64: `1 - 0.999` alone would lose five digits.
    number = tf.cast(step + 1, tf.float64)
    first = tf.cast(1.0 - _FIRST**number, gradient.dtype)
    second = tf.cast(1.0 - _SECOND**number, gradient.dtype)
    mean = _FIRST * state.mean + (1.0 - _FIRST) * gradient
    square = _SECOND * state.square + (1.0 - _SECOND) * tf.square(gradient)
    # Both means begin at zero: they are too small by these shares.
    size = tf.sqrt(square / second) + _EPSILON
    return Adam(state.w - learning_rate * (mean / first) / size, mean, square)
