"""The best iterate so far, per example, and the gradient there."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf


class Best(NamedTuple):
    """Hold where the objective was largest, to go on from there.

    Attributes:
        x: Float `(B, *S)`.
        gradient: Like `x`, of the objective.
        value: Float32 `(B,)`, the objective.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.attacks.gradient.best import Best
        >>> best = Best.none(tf.zeros((1, 1)))
        >>> best = best.seen(tf.ones((1, 1)), tf.ones((1, 1)), tf.constant([-3.0]))
        >>> best.x.numpy().tolist()
        [[1.0]]
    """

    x: tf.Tensor
    gradient: tf.Tensor
    value: tf.Tensor

    @classmethod
    def none(cls, x: tf.Tensor) -> Best:
        """Return what every iterate is better than, for a search from `x`."""
        lowest = tf.fill(tf.shape(x)[:1], float("-inf"))
        return cls(x, tf.zeros_like(x), lowest)

    def seen(self, x: tf.Tensor, gradient: tf.Tensor, value: tf.Tensor) -> Best:
        """Return the better of this and another iterate; of equals the earlier."""
        better = value > self.value
        return Best(
            pick(better, x, self.x),
            pick(better, gradient, self.gradient),
            tf.where(better, value, self.value),
        )


def pick(take: tf.Tensor, a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    """Take the examples of `a` where `take` is true, else those of `b`.

    Args:
        take: Bool `(B,)`.
        a: Any dtype, `(B, *S)`.
        b: Like `a`.

    Returns:
        The mixture, of the static shape of `b`.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.attacks.gradient.best import pick
        >>> take = tf.constant([True, False])
        >>> pick(take, tf.ones((2, 1)), tf.zeros((2, 1))).numpy().tolist()
        [[1.0], [0.0]]
    """
    # tf.where forgets static dimensions of one, which a loop would not accept.
    return tf.ensure_shape(tf.where(per_example(take, b), a, b), b.shape)


def per_example(values: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
    """Reshape `(B,)` to `(B, 1, ..., 1)`, which broadcasts against `x`.

    Args:
        values: Any dtype, `(B,)`.
        x: `(B, *S)`.

    Returns:
        The values, one per example.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.attacks.gradient.best import per_example
        >>> per_example(tf.zeros(2), tf.zeros((2, 3, 4))).shape
        TensorShape([2, 1, 1])
    """
    return tf.reshape(values, [-1] + [1] * (x.shape.rank - 1))
