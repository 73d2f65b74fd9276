"""How long the true gradient of a loss is, where only its direction was computed."""

from __future__ import annotations

import tensorflow as tf

from keras_jsigr.attacks.objectives.losses import LossName
from keras_jsigr.core.scores import class_score, hard_targets

# Products with gradients stay normal numbers in float32.
_SMALLEST = -60.0


def loss_slope(
    logits: tf.Tensor, targets: tf.Tensor, loss: LossName = "cross_entropy"
) -> tf.Tensor:
    """Compute the factor from the gradient of `ascent_loss` to that of `attack_loss`.

    For cross entropy and a hard target it is `1 - p_y`, never below `e^-60`; else one.
    A single gradient needs no factor. A mean of gradients from several points does:
    each counts as much as the model is unsure there.

    Args:
        logits: Float `(B, C)`; `C = 1` means one sigmoid unit.
        targets: Float `(B, C)`.
        loss: The name of the loss.

    Returns:
        Float32 `(B,)`, above 0, at most 1.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.attacks.objectives.loss_slope import loss_slope
        >>> z, target = tf.constant([[0.0, 0.0]]), tf.constant([[0.0, 1.0]])
        >>> loss_slope(z, target).numpy().tolist()
        [0.5]
    """
    targets = tf.cast(targets, tf.float32)
    odds = class_score(logits, targets, "margin")
    if loss != "cross_entropy":
        return tf.ones_like(odds)
    slope = tf.exp(tf.maximum(-tf.nn.softplus(odds), _SMALLEST))
    if logits.shape[-1] == 1:
        return slope
    return tf.where(hard_targets(targets), slope, tf.ones_like(slope))
