"""A step that stays among the fooling points, found by halving."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from keras_jsigr.attacks.queries.bisection import Decide
from keras_jsigr.attacks.search.rows import like


def fooling_step(
    decide: Decide,
    x: tf.Tensor,
    direction: tf.Tensor,
    length: tf.Tensor,
    *,
    input_range: tuple[float, float],
    halvings: int,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Take the longest of the steps `length / 2^k` that leads to a fooling point.

    Args:
        decide: Tells whether points fool the model, bool `(B,)`.
        x: Float `(B, *S)`.
        direction: Like `x`.
        length: Like `x` in dtype, `(B,)`.
        input_range: `(low, high)` that the steps are cut with.
        halvings: The largest number of steps tried.

    Returns:
        The tuple of points that fool, or `x` itself, and the int32 number of decisions.

    Reference:
        arXiv 1904.02144, algorithm 2.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.attacks.queries.fooling_step import fooling_step
        >>> decide = lambda x: x[:, 0] < 0.3
        >>> x, way, one = tf.zeros((1, 1)), tf.ones((1, 1)), tf.ones((1,))
        >>> y, asked = fooling_step(
        ...     decide, x, way, one, input_range=(0.0, 1.0), halvings=9
        ... )
        >>> float(y[0, 0]), int(asked)
        (0.25, 3)
    """

    def one(
        asked: tf.Tensor, length: tf.Tensor, moved: tf.Tensor, done: tf.Tensor
    ) -> Any:
        point = tf.clip_by_value(x + like(length, x) * direction, *input_range)
        fools = decide(point) & ~done
        moved = tf.ensure_shape(tf.where(like(fools, x), point, moved), x.shape)
        return asked + 1, length / 2, moved, done | fools

    start = (tf.constant(0), length, x, tf.zeros_like(length, tf.bool))
    asked, _, moved, _ = tf.while_loop(
        lambda asked, _length, _moved, done: (asked < halvings) & ~tf.reduce_all(done),
        one,
        start,
    )
    return moved, asked
