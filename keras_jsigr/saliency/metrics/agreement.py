"""Whether two explanations of the same decision agree."""

from __future__ import annotations

from typing import Any, NamedTuple

import tensorflow as tf

from keras_jsigr.saliency.metrics.map_rows import two_map_rows, unit_rows
from keras_jsigr.saliency.metrics.rank_correlation import rank_correlation
from keras_jsigr.saliency.metrics.top_k_intersection import top_k_intersection


class Agreement(NamedTuple):
    """Agreement of two maps, per example, in three measures.

    Attributes:
        rank: Float32 `(B,)`, Spearman's correlation, -1 to 1.
        cosine: Float32 `(B,)`, of the maps as vectors, -1 to 1.
        overlap: Float32 `(B,)`, intersection over union of the top halves, 0 to 1;
            1/3 for unrelated maps.
    """

    rank: tf.Tensor
    cosine: tf.Tensor
    overlap: tf.Tensor


def agreement(maps: Any, others: Any) -> Agreement:
    """Compare two maps of the same inputs, such as gradient and perturbation map.

    `rank = Spearman(a, b)`, `cosine = <a, b> / (||a|| ||b||)`, and
    `overlap = |T(a) & T(b)| / |T(a) | T(b)|` with `T` the top half of the pixels. A
    map of zeros has cosine 0; a constant one has rank and overlap 0.

    Args:
        maps: Float `(B, *map_shape)`.
        others: Of the same shape.

    Returns:
        `rank`, `cosine` and `overlap`, each float32 `(B,)`; larger is more alike.

    Raises:
        ValueError: If shapes differ.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.saliency.metrics.agreement import agreement
        >>> maps = tf.constant([[0.0, 1.0, 2.0, 3.0]])
        >>> [float(part[0]) for part in agreement(maps, 2.0 * maps)]
        [1.0, 1.0, 1.0]
    """
    rows, other_rows = two_map_rows(maps, others)
    cosine = tf.reduce_sum(unit_rows(rows) * unit_rows(other_rows), axis=1)
    shared = top_k_intersection(rows, other_rows, top=0.5)
    return Agreement(
        rank=rank_correlation(rows, other_rows),
        cosine=tf.clip_by_value(cosine, -1.0, 1.0),
        overlap=shared / (2.0 - shared),
    )
