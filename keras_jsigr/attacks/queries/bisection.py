"""Find the boundary between an input and a fooling point by decisions alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from keras_jsigr.attacks.minimum_norm.closest import lengths
from keras_jsigr.attacks.search.rows import like

# Takes points (B, *S), returns whether they fool the model, bool (B,).
Decide = Callable[[tf.Tensor], tf.Tensor]


def bisect(
    decide: Decide, origin: tf.Tensor, x: tf.Tensor, *, norm: str, passes: int
) -> tf.Tensor:
    """Move fooling points towards their inputs as far as they still fool.

    Halves the distance `r` in doubt: under `"l2"` among the points of the segment from
    the input to `x`, under `"linf"` among `clip(x, origin - r, origin + r)`.

    Args:
        decide: Tells whether points fool the model.
        origin: Float `(B, *S)`, the inputs.
        x: Like `origin`, points that fool.
        norm: `"l2"` or `"linf"`.
        passes: Number of decisions; the error is `2**-passes` of the distance.

    Returns:
        Like `x`: points that were seen to fool, or `x` itself.

    Reference:
        arXiv 1904.02144, algorithm 1.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.attacks.queries.bisection import bisect
        >>> decide = lambda x: x[:, 0] > 0.25
        >>> x = tf.constant([[1.0, 0.5]])
        >>> y = bisect(decide, tf.zeros((1, 2)), x, norm="linf", passes=9)
        >>> y.numpy().round(2).tolist()
        [[0.25, 0.25]]
    """
    reach = lengths(x - origin, norm)
    lower, upper = tf.minimum(origin, x), tf.maximum(origin, x)

    def at(share: tf.Tensor) -> tf.Tensor:
        if norm == "l2":
            point = origin + like(share, x) * (x - origin)
        else:
            radius = like(share * reach, x)
            point = tf.clip_by_value(x, origin - radius, origin + radius)
        # Between both to the last digit, so that range and region stay kept.
        return tf.clip_by_value(point, lower, upper)

    def body(turn: tf.Tensor, low: tf.Tensor, high: tf.Tensor) -> Any:
        middle = (low + high) / 2
        fools = decide(at(middle))
        return turn + 1, tf.where(fools, low, middle), tf.where(fools, middle, high)

    start = (tf.constant(0), tf.zeros_like(reach), tf.ones_like(reach))
    _, _, high = tf.while_loop(
        lambda turn, *_: turn < passes, body, start, maximum_iterations=passes
    )
    return tf.ensure_shape(tf.where(like(high < 1.0, x), at(high), x), x.shape)
