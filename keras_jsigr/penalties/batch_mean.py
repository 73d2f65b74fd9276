"""From a penalty per example to the scalar that joins the loss."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf


def batch_mean(per_example: Any, sample_weight: Any, over_weights: bool = False) -> Any:
    """Average a penalty over the batch as Keras averages the loss.

    `sum w_b R_b / B`, or over the weights, `sum w_b R_b / sum w_b`. A replica without
    examples, of a batch smaller than their number, has the mean 0.

    Args:
        per_example: Float32 `(B,)`.
        sample_weight: `None`, `(B,)` or `(B, 1)`; other shapes (weights of several
            outputs or of time steps) count as one.
        over_weights: Whether to divide by the sum of the weights, as losses with
            `reduction="mean_with_sample_weight"` do.

    Returns:
        Float32 scalar.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.penalties import batch_mean
        >>> float(batch_mean(tf.constant([1.0, 3.0]), tf.constant([0.0, 1.0])))
        1.5
    """
    count = tf.cast(tf.shape(per_example)[0], tf.float32)
    leaves = [w for w in keras.tree.flatten(sample_weight) if w is not None]
    if len(leaves) == 1:
        weight = tf.convert_to_tensor(leaves[0])  # NumPy in eager steps
        if weight.shape.rank == 1 or weight.shape[1:].num_elements() == 1:
            weight = tf.cast(tf.reshape(weight, (-1,)), tf.float32)
            per_example = per_example * weight
            count = tf.reduce_sum(weight) if over_weights else count
    return tf.math.divide_no_nan(tf.reduce_sum(per_example), count)
