"""The distance of logits from the decision for another class."""

from __future__ import annotations

import tensorflow as tf

from keras_jsigr.core.weighted_logits import weighted_logits


def margin_loss(logits: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
    """Compute `max_{j != y} z_j - z_y`, positive exactly where misclassified.

    Args:
        logits: Float `(B, C)`; `C = 1` means one sigmoid unit: `-z` for class one, `z`
            for class zero.
        targets: Float `(B, C)` from `class_targets`; the largest entry counts.

    Returns:
        Float `(B,)`, dtype of the logits.

    Reference:
        arXiv 1608.04644.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.attacks.objectives.margin import margin_loss
        >>> z, target = tf.constant([[1.0, 3.0]]), tf.constant([[0.0, 1.0]])
        >>> margin_loss(z, target).numpy().tolist()
        [-2.0]
    """
    if logits.shape[-1] == 1:
        return tf.squeeze((1.0 - 2.0 * tf.cast(targets, logits.dtype)) * logits, -1)
    dtype, classes = logits.dtype, logits.shape[-1]
    label = tf.one_hot(tf.argmax(targets, axis=-1), classes, dtype=dtype)
    others = tf.where(label > 0, dtype.min, logits)
    own = weighted_logits(logits, label)
    return tf.reduce_max(others, axis=-1) - own
