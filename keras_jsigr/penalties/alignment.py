"""Saliency imitation read literally: turn the gradient map towards the target map."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from keras_jsigr.penalties.jacobian import safe_sqrt


def alignment_penalty(gradients: Any, saliency: Any) -> Any:
    """Compute `1 - cos(|g|, S)` per example.

    `|g|` is the gradient's magnitude summed over channels; `S` carries no gradient.
    Where either is all zero the penalty is one, with gradient zero.

    Args:
        gradients: Float32 `(B, *map_shape)` or `(B, *map_shape, channels)`.
        saliency: Float32 `(B, *map_shape)`, non-negative.

    Returns:
        Float32 `(B,)` in 0..1.

    Reference:
        arXiv 1912.03430 (interpretation regularization by cosine).

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.penalties import alignment_penalty
        >>> g = tf.constant([[3.0, 0.0]])
        >>> alignment_penalty(g, tf.constant([[0.0, 1.0]])).numpy().tolist()
        [1.0]
    """
    magnitude = tf.abs(gradients)
    target = tf.stop_gradient(tf.convert_to_tensor(saliency))
    if magnitude.shape.rank > target.shape.rank:
        magnitude = tf.reduce_sum(magnitude, axis=-1)
    axes = list(range(1, target.shape.rank))
    product = tf.reduce_sum(magnitude * target, axes)
    norms = safe_sqrt(tf.reduce_sum(tf.square(magnitude), axes)) * safe_sqrt(
        tf.reduce_sum(tf.square(target), axes)
    )
    return 1.0 - tf.math.divide_no_nan(product, norms)
