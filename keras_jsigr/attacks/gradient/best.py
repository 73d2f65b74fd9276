"""The best iterate so far, per example, and the gradient there."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from keras_jsigr.attacks.search.rows import pick


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
