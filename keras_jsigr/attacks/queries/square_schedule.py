"""How large the windows of the Square attack are, from query to query."""

from __future__ import annotations

import math

import tensorflow as tf

# The paper's steps for 10,000 queries: the window's area is halved after each.
_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
_PAPER_QUERIES = 10_000
STAGES = len(_HALVINGS) + 1


def stage(query: tf.Tensor, queries: int) -> tf.Tensor:
    """Count how often the window's area was halved: the paper's schedule, rescaled.

    `stage = #{h in (10, 50, 200, ..., 8000) : floor(10000 * query / queries) > h}`.

    Args:
        query: Int32, any shape; the number of the window, from zero.
        queries: The budget that the schedule is stretched or squeezed to.

    Returns:
        Int32 like `query`, 0 to 9: the area is `p_init / 2**stage` of the image.

    Reference:
        arXiv 1912.00049.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.attacks.queries.square_schedule import stage
        >>> stage(tf.constant([0, 5, 6, 25, 26, 4999]), 5000).numpy().tolist()
        [0, 0, 1, 1, 2, 9]
    """
    # In 64 bits: the product of large budgets does not fit 32.
    paper_query = tf.cast(query, tf.int64) * _PAPER_QUERIES // queries
    halvings = tf.constant(_HALVINGS, tf.int64)
    over = paper_query[..., None] > halvings
    return tf.reduce_sum(tf.cast(over, tf.int32), axis=-1)


def window_sides(
    fraction: float, extent: tuple[int, int], *, odd: bool = False
) -> tuple[int, int]:
    """Choose the sides of a window that covers a fraction of an image.

    A square of side `round(sqrt(fraction * H * W))`; where that is longer than the
    image, the other side makes up for it.

    Args:
        fraction: Of the area, between 0 and 1.
        extent: `(H, W)` of the image in pixels.
        odd: Whether both sides are odd and at least three, if they fit, as the
            windows of the L2 attack have to be.

    Returns:
        Height and width in pixels, at least one and at most those of the image.

    Example:
        >>> from keras_jsigr.attacks.queries.square_schedule import window_sides
        >>> window_sides(0.8, (28, 28)), window_sides(0.5, (100, 1))
        ((25, 25), (50, 1))
        >>> window_sides(0.05, (28, 28), odd=True)
        (7, 7)
    """
    area = fraction * extent[0] * extent[1]
    shorter = min(extent)
    side = min(_whole(math.sqrt(area), odd), shorter)
    if side < shorter:
        return side, side
    longer = min(_whole(area / shorter, odd), max(extent))
    return (longer, shorter) if extent[0] >= extent[1] else (shorter, longer)


def _whole(side: float, odd: bool) -> int:
    whole = max(round(side), 1)
    return max(whole + (whole % 2 == 0), 3) if odd else whole


def all_window_sides(
    p_init: float, extent: tuple[int, int], *, odd: bool = False
) -> list[tuple[int, int]]:
    """List the sides of the windows of all stages.

    Args:
        p_init: Fraction of the image that the first windows cover.
        extent: `(H, W)` of the image in pixels.
        odd: See `window_sides`.

    Returns:
        Ten pairs, height and width in pixels.

    Example:
        >>> from keras_jsigr.attacks.queries.square_schedule import all_window_sides
        >>> all_window_sides(0.8, (28, 28))[0], all_window_sides(0.8, (28, 28))[-1]
        ((25, 25), (1, 1))
    """
    fractions = [p_init / 2**number for number in range(STAGES)]
    return [window_sides(fraction, extent, odd=odd) for fraction in fractions]
