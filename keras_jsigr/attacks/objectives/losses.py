"""What an attack drives up: per-example losses in float32, from logits."""

from __future__ import annotations

from typing import Literal

import tensorflow as tf

from keras_jsigr.attacks.objectives.answered import answered
from keras_jsigr.attacks.objectives.dlr import dlr_loss
from keras_jsigr.attacks.objectives.margin import margin_loss
from keras_jsigr.core.logits import as_classes
from keras_jsigr.core.scores import class_score, hard_targets
from keras_jsigr.core.weighted_logits import weighted_logits

LossName = Literal["cross_entropy", "margin", "dlr"]


def attack_loss(
    logits: tf.Tensor, targets: tf.Tensor, loss: LossName = "cross_entropy"
) -> tf.Tensor:
    """Compute the loss of the target class: the larger, the less it is predicted.

    - `cross_entropy`: `logsumexp_j z_j - z_y`;
    - `margin`: `max_{j != y} z_j - z_y`, positive exactly where misclassified;
    - `dlr`: the margin divided by the largest minus the third largest logit.

    Args:
        logits: Float `(B, C)`; `C = 1` means one sigmoid unit.
        targets: Float `(B, C)` from `class_targets`.
        loss: The name of the loss.

    Returns:
        Float32 `(B,)`. Classes ruled out by minus infinity count for nothing.

    Reference:
        arXiv 1412.6572 (cross entropy), arXiv 1608.04644 (margin), arXiv 2003.01690
        (dlr).

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.attacks.objectives.losses import attack_loss
        >>> z, target = tf.constant([[1.0, 3.0]]), tf.constant([[0.0, 1.0]])
        >>> attack_loss(z, target, "margin").numpy().tolist()
        [-2.0]
    """
    z = tf.cast(logits, tf.float32)
    targets = tf.cast(targets, tf.float32)
    if loss == "dlr":
        return dlr_loss(z, targets)
    if loss == "margin":
        return margin_loss(z, targets)
    if z.shape[-1] == 1:
        return -class_score(z, targets, "log_prob")
    ratio = _log_ratio(z, targets)
    return tf.where(hard_targets(targets), tf.nn.softplus(ratio), ratio)


def ascent_loss(
    logits: tf.Tensor, targets: tf.Tensor, loss: LossName = "cross_entropy"
) -> tf.Tensor:
    """Compute a loss with the gradient direction of `attack_loss` that cannot vanish.

    For a hard target, cross entropy is `log(1 + exp(-m))` with the log odds
    `m = z_y - logsumexp_{j != y} z_j`. Its gradient is `-(1 - p_y) * grad m`: parallel
    to `-grad m` per example, but zero in floating point for a confident model. Signs
    and normalised directions are those of cross entropy, at any confidence.

    Args:
        logits: Float `(B, C)`; `C = 1` means one sigmoid unit.
        targets: Float `(B, C)`; soft rows get plain cross entropy.
        loss: The name of the loss.

    Returns:
        Float32 `(B,)`; only its gradient's direction per example has a meaning.

    Reference:
        arXiv 1608.04644 and arXiv 2003.01690 (vanishing gradients of cross entropy).

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.attacks.objectives.losses import ascent_loss
        >>> z, target = tf.Variable([[200.0, 0.0]]), tf.constant([[1.0, 0.0]])
        >>> with tf.GradientTape() as tape:
        ...     loss = ascent_loss(z, target)
        >>> tape.gradient(loss, z).numpy().tolist()
        [[-1.0, 1.0]]
    """
    if loss != "cross_entropy":
        return attack_loss(logits, targets, loss)
    z = tf.cast(logits, tf.float32)
    targets = tf.cast(targets, tf.float32)
    if z.shape[-1] == 1:
        return -class_score(z, targets, "margin")
    return _log_ratio(z, targets)


def _log_ratio(z: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
    """Return minus the log odds of hard targets, the cross entropy of soft ones.

    Both are `logsumexp_j z_j - sum_j t_j z_j`, the sum over the other classes alone
    where the target is hard: one formula, half the operations of a choice of two.
    """
    label = tf.one_hot(tf.argmax(targets, axis=-1), z.shape[-1])
    left_out = (label > 0) & hard_targets(targets)[:, tf.newaxis]
    others = tf.where(left_out, z.dtype.min, z)
    own = weighted_logits(z, targets)
    return tf.reduce_logsumexp(others, axis=-1) - own


def misclassified(logits: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
    """Tell whether the decision differs from the target class.

    A row that names no class, see `answered`, decides for none: it differs from all.

    Args:
        logits: Float `(B, C)`; `C = 1` means one sigmoid unit.
        targets: Float `(B, C)`.

    Returns:
        Bool `(B,)`.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.attacks.objectives.losses import misclassified
        >>> misclassified(tf.constant([[1.0, 3.0]]), tf.constant([[1.0, 0.0]])).numpy()
        array([ True])
    """
    if logits.shape[-1] == 1:
        wrong = tf.squeeze((logits > 0) != (targets > 0.5), -1)
    else:
        wrong = tf.argmax(logits, axis=-1) != tf.argmax(targets, axis=-1)
    return wrong | ~answered(as_classes(logits))
