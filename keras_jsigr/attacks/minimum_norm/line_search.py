"""Move a fooling point towards its input as long as it fools."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from keras_jsigr.attacks.search.rows import like

# Takes points (B, *S); returns bool (B,), they fool, and float32 (B,), the margin.
Judge = Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]
# Aimed at the zero itself, half of the points would land just before the boundary.
_BEYOND = 0.02


def line_search(
    judge: Judge, origin: tf.Tensor, x: tf.Tensor, passes: int
) -> tf.Tensor:
    """Find the boundary on the segment from the inputs to fooling points.

    Keeps a bracket of one point that does not fool and one that does, and asks in turn
    a little beyond the zero of the straight line through their margins and at their
    middle. Where the margin is nearly straight, two passes make the error 50 times
    smaller; whatever it is, half as large.

    Args:
        judge: Tells of points, like `x`, whether they fool, and their margin, which is
            positive where they do.
        origin: Float32 or float64 `(B, *S)`, the inputs; they do not fool.
        x: Like `origin`, points that fool.
        passes: Number of questions, >= 0; two more tell the margins at both ends.

    Returns:
        Like `x`: points of the segment that fool, `x` itself where none was seen.

    Reference:
        arXiv 1907.02044, section 3.4 (the line through both margins).

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.attacks.minimum_norm.line_search import line_search
        >>> judge = lambda x: (x[:, 0] > 0.25, x[:, 0] - 0.25)
        >>> x = line_search(judge, tf.zeros((1, 1)), tf.ones((1, 1)), 10)
        >>> round(float(x[0, 0]), 4)
        0.25
    """
    if passes == 0:
        return x
    lower, upper = tf.minimum(origin, x), tf.maximum(origin, x)

    def at(share: tf.Tensor) -> tf.Tensor:
        # Between both to the last digit, so that range and region stay kept.
        return tf.clip_by_value(origin + like(share, x) * (x - origin), lower, upper)

    def body(
        turn: tf.Tensor, low: tf.Tensor, high: tf.Tensor, below: Any, above: Any
    ) -> Any:
        zero_at = low + (high - low) * tf.clip_by_value(
            tf.math.divide_no_nan(below, below - above), 0.0, 1.0
        )
        aimed = zero_at + _BEYOND * (high - zero_at)
        share = tf.where(turn % 2 == 0, aimed, (low + high) / 2.0)
        # The first two turns tell the margins at both ends.
        share = tf.where(turn == 0, zero, tf.where(turn == 1, zero + 1.0, share))
        fools, margin = judge(at(share))
        margin = tf.cast(margin, x.dtype)
        return (
            turn + 1,
            tf.where(fools, low, share),
            tf.where(fools, share, high),
            tf.where(fools, below, margin),
            tf.where(fools, margin, above),
        )

    zero = tf.zeros(tf.shape(x)[:1], x.dtype)
    _, _, high, _, _ = tf.while_loop(
        lambda *_: tf.size(zero) > 0,
        body,
        (tf.constant(0), zero, zero + 1.0, zero, zero),
        maximum_iterations=passes + 2,
    )
    # With a share of one, `origin + (x - origin)` need not be `x`.
    return tf.where(like(high < 1.0, x), at(high), x)
