"""What of a gradient an attack may follow."""

from __future__ import annotations

import tensorflow as tf


def usable_part(gradient: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Put zeros where a gradient is NaN or infinite: nothing moves there.

    Args:
        gradient: Float `(B, *S)`.

    Returns:
        The tuple of the finite gradient `(B, *S)` and bool `(B,)`: whether it was
        finite everywhere.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.attacks.search.usable_part import usable_part
        >>> gradient, healthy = usable_part(tf.constant([[1.0, float("nan")]]))
        >>> gradient.numpy().tolist(), healthy.numpy().tolist()
        ([[1.0, 0.0]], [False])
    """
    usable = tf.math.is_finite(gradient)
    healthy = tf.reduce_all(usable, axis=list(range(1, gradient.shape.rank)))
    return tf.where(usable, gradient, tf.zeros_like(gradient)), healthy
