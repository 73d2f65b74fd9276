"""Sums of logits in which a class that is ruled out may have the weight zero."""

from __future__ import annotations

import tensorflow as tf


def weighted_logits(logits: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """Compute `sum_c w_c z_c`, where nothing times minus infinity is nothing.

    Args:
        logits: Float `(B, C)`; minus infinity rules a class out.
        weights: Like `logits`.

    Returns:
        Float `(B,)`.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.core.weighted_logits import weighted_logits
        >>> z = tf.constant([[2.0, float("-inf")]])
        >>> weighted_logits(z, tf.constant([[1.0, 0.0]])).numpy().tolist()
        [2.0]
    """
    return tf.reduce_sum(tf.math.multiply_no_nan(logits, weights), axis=-1)
