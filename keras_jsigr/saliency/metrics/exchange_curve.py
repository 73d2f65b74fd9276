"""The score while pixels are exchanged one group after the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from keras_jsigr.core.map_each import map_each
from keras_jsigr.saliency.interpolate import expand_map
from keras_jsigr.saliency.metrics.map_rows import map_rows

ScoreFn = Callable[[tf.Tensor], tf.Tensor]


def exchange_curve(
    score_fn: ScoreFn, start: Any, end: Any, maps: Any, *, steps: int = 28
) -> tf.Tensor:
    """Compute the score on the way from one input to another, top pixels first.

    After step k the `round(n k / steps)` most salient pixels, all channels of each,
    come from `end` and the others from `start`. Of equal values the first ones go
    first.

    Args:
        score_fn: Maps inputs `(B, *S)` to scores `(B,)`, each example by itself.
        start: Float `(B, *S)`.
        end: Of the same shape.
        maps: Float `(B, *map_shape)`, the order.
        steps: How often pixels are exchanged, 1 to their number n.

    Returns:
        Float32 `(B, steps + 1)`, from `score_fn(start)` to `score_fn(end)`.

    Raises:
        ValueError: If `steps` is out of range or a map does not fit the inputs.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.saliency.metrics.exchange_curve import exchange_curve
        >>> x = tf.constant([[1.0, 3.0]])
        >>> score = lambda x: tf.reduce_sum(x, 1)
        >>> exchange_curve(score, x, tf.zeros((1, 2)), x, steps=2).numpy().tolist()
        [[4.0, 1.0, 0.0]]
    """
    start, end, maps = (tf.convert_to_tensor(part) for part in (start, end, maps))
    rows = map_rows(maps)
    n = rows.shape[1]
    if not isinstance(steps, int) or not 1 <= steps <= n:
        raise ValueError(
            f"Got steps {steps!r}, expected an integer from 1 to {n}, the number of "
            "pixels. The usual number is 28."
        )
    order = tf.argsort(rows, axis=1, direction="DESCENDING", stable=True)
    place = tf.argsort(order, axis=1, stable=True)
    place = expand_map(tf.reshape(place, [-1, *maps.shape[1:]]), start)

    def score(count: tf.Tensor) -> tf.Tensor:
        return tf.cast(score_fn(tf.where(place < count, end, start)), tf.float32)

    return tf.transpose(map_each(score, exchange_counts(n, steps), (None,)))


def exchange_counts(n: int, steps: int) -> tf.Tensor:
    """Count the pixels that are exchanged after each step, `round(n k / steps)`.

    Args:
        n: The number of pixels.
        steps: How often pixels are exchanged.

    Returns:
        Int32 `(steps + 1,)`, from 0 to n; halves are rounded up.

    Example:
        >>> from keras_jsigr.saliency.metrics.exchange_curve import exchange_counts
        >>> exchange_counts(5, 2).numpy().tolist()
        [0, 3, 5]
    """
    # Rounded in integers: the same pixels whatever the float type. In 64 bits: the
    # product of pixels and steps outgrows 32.
    step = np.arange(steps + 1, dtype=np.int64)
    return tf.constant((2 * n * step + steps) // (2 * steps), tf.int32)


def area_under(curve: tf.Tensor) -> tf.Tensor:
    """Compute the area under curves over 0..1, by the trapezoidal rule.

    Args:
        curve: Float `(B, K)` at K >= 2 places in equal distances.

    Returns:
        Float `(B,)`.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.saliency.metrics.exchange_curve import area_under
        >>> area_under(tf.constant([[1.0, 0.5, 0.0]])).numpy().tolist()
        [0.5]
    """
    return tf.reduce_mean((curve[:, 1:] + curve[:, :-1]) / 2.0, axis=1)
