"""Whether two maps put the pixels in the same order."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from keras_jsigr.saliency.metrics.map_rows import two_map_rows


def rank_correlation(maps: Any, others: Any) -> tf.Tensor:
    """Compute Spearman's rank correlation of two maps.

    Pearson's correlation of the ranks; equal values share the mean of their ranks. It
    depends on the order of the pixels alone. With a constant map it is undefined: 0.

    Args:
        maps: Float `(B, *map_shape)`.
        others: Of the same shape.

    Returns:
        Float32 `(B,)`, -1 to 1; larger is more alike, 0 for unrelated maps.

    Raises:
        ValueError: If shapes differ.

    Reference:
        arXiv 1810.03292 (to compare saliency maps).

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.saliency.metrics.rank_correlation import rank_correlation
        >>> a, b = tf.constant([[1.0, 2.0, 3.0]]), tf.constant([[0.0, 10.0, 500.0]])
        >>> rank_correlation(a, b).numpy().tolist()
        [1.0]
    """
    one, other = (_centred(average_ranks(rows)) for rows in two_map_rows(maps, others))
    size = tf.norm(one, axis=1) * tf.norm(other, axis=1)
    found = tf.math.divide_no_nan(tf.reduce_sum(one * other, axis=1), size)
    return tf.cast(tf.clip_by_value(found, -1.0, 1.0), tf.float32)


def average_ranks(rows: Any) -> tf.Tensor:
    """Rank the values of each row from 1 to n; equal values share their mean rank.

    Args:
        rows: Float `(B, n)`.

    Returns:
        Float64 `(B, n)`.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.saliency.metrics.rank_correlation import average_ranks
        >>> average_ranks(tf.constant([[5.0, 0.0, 5.0]])).numpy().tolist()
        [[2.5, 1.0, 2.5]]
    """
    # Zero and minus zero are equal but not for the sorting of every kernel.
    rows = tf.convert_to_tensor(rows) + 0.0
    ordered = tf.sort(rows, axis=1)
    below = tf.searchsorted(ordered, rows, side="left")
    up_to = tf.searchsorted(ordered, rows, side="right")
    return tf.cast(below + up_to + 1, tf.float64) / 2.0


def _centred(ranks: tf.Tensor) -> tf.Tensor:
    return ranks - tf.reduce_mean(ranks, axis=1, keepdims=True)
