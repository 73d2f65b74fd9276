"""How few pixels a map is concentrated on."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from keras_jsigr.saliency.metrics.map_rows import map_rows


def gini(maps: Any) -> tf.Tensor:
    """Compute the Gini index of the absolute values of each map.

    `G = sum_i (2 i - n - 1) a_i / (n sum_i a_i)` with the `a_i = |map|` in ascending
    order, i from 1 to n. It is 0 for equal values and `1 - 1/n` for a single one; it
    does not depend on the scale. A map of zeros is spread evenly: 0.

    Args:
        maps: Float `(B, *map_shape)`, signed or not.

    Returns:
        Float32 `(B,)`, 0 to below 1; larger is sparser.

    Raises:
        ValueError: If there is no axis beside the batch axis.

    Reference:
        arXiv 1810.06583 (as a measure of sparse explanations).

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.saliency.metrics.gini import gini
        >>> gini(tf.constant([[1.0, 1.0], [0.0, 3.0]])).numpy().tolist()
        [0.0, 0.5]
    """
    values = tf.sort(tf.abs(map_rows(maps)), axis=1)
    n = values.shape[1]
    # To size one first, so that sums of tiny gradients stay normal numbers.
    values = tf.math.divide_no_nan(values, values[:, -1:])
    ranks = tf.range(1.0 - n, n, 2.0)
    weighted = tf.linalg.matvec(values, ranks) / n
    return tf.maximum(
        tf.math.divide_no_nan(weighted, tf.reduce_sum(values, axis=1)), 0.0
    )
