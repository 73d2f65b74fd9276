"""How many of the most salient pixels two maps share."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from keras_jsigr.saliency.metrics.map_rows import is_constant, two_map_rows


def top_k_intersection(maps: Any, others: Any, *, top: float = 0.1) -> tf.Tensor:
    """Compute the share of the top pixels of one map that are top in the other too.

    `|T(a) & T(b)| / k` with `T` the `k = round(top n)` largest values, at least one. Of
    equal values the first ones are taken. A constant map has no top: 0.

    Args:
        maps: Float `(B, *map_shape)`.
        others: Of the same shape.
        top: Share of the pixels, above 0, below 1. Two unrelated maps share `top`.

    Returns:
        Float32 `(B,)`, 0 to 1; larger is more alike.

    Raises:
        ValueError: If shapes differ or `top` is out of range.

    Reference:
        arXiv 1710.10547.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.saliency.metrics.top_k_intersection import (
        ...     top_k_intersection,
        ... )
        >>> a, b = tf.constant([[4.0, 3.0, 2.0, 1.0]]), tf.constant([[4.0, 1.0, 2, 3]])
        >>> top_k_intersection(a, b, top=0.5).numpy().tolist()
        [0.5]
    """
    if not 0.0 < top < 1.0:
        raise ValueError(
            f"Got top {top!r}, expected a share above 0 and below 1. Use 0.1 for a "
            "tenth of the pixels."
        )
    rows, other_rows = two_map_rows(maps, others)
    k = max(1, round(top * rows.shape[1]))
    shared = _top(rows, k) & _top(other_rows, k)
    found = tf.reduce_sum(tf.cast(shared, tf.float32), axis=1) / k
    flat = is_constant(rows) | is_constant(other_rows)
    return tf.where(flat, tf.zeros_like(found), found)


def _top(rows: tf.Tensor, k: int) -> tf.Tensor:
    # Of equal values `top_k` takes those of the lower index.
    chosen = tf.math.top_k(rows, k, sorted=False).indices
    row = tf.repeat(tf.range(tf.shape(rows)[0]), k)
    places = tf.stack([row, tf.reshape(chosen, (-1,))], axis=1)
    marks = tf.ones_like(row, tf.bool)
    return tf.scatter_nd(places, marks, tf.shape(rows))
