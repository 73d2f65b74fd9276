"""The losses that attacks drive up, and which points count as misclassified."""

from __future__ import annotations

from typing import Literal

import tensorflow as tf

from keras_jsigr.core.logits import as_classes, has_valid_logits
from keras_jsigr.core.scores import class_score, hard_targets, masked_dot


def margin_loss(logits: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
    """Compute `max_{j != y} z_j - z_y`, positive exactly where misclassified."""
    if logits.shape[-1] == 1:
        return tf.squeeze((1.0 - 2.0 * tf.cast(targets, logits.dtype)) * logits, -1)
    dtype, classes = logits.dtype, logits.shape[-1]
    label = tf.one_hot(tf.argmax(targets, axis=-1), classes, dtype=dtype)
    others = tf.where(label > 0, dtype.min, logits)
    own = masked_dot(logits, label)
    return tf.reduce_max(others, axis=-1) - own


def dlr_loss(logits: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
    """Compute the difference of logits ratio of the class to leave."""
    z = tf.cast(logits, tf.float32)
    if z.shape[-1] <= 2:
        return margin_loss(z, targets)
    z, first, third = _unit_spread(z, 3)
    return margin_loss(z, targets) / _safe(first - third)


def targeted_dlr_loss(logits: tf.Tensor, targets: tf.Tensor, goals: tf.Tensor) -> tf.Tensor:
    """Compute the difference of logits ratio of the class to reach and the other."""
    z = tf.cast(logits, tf.float32)
    if z.shape[-1] < 4:
        return _difference(z, targets, goals)
    z, first, last = _unit_spread(z, 4)
    return _difference(z, targets, goals) / _safe(first - last)


def _unit_spread(z: tf.Tensor, rank: int) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Rescale `z` by a constant so that the ratio's denominator is about one."""
    top = tf.math.top_k(tf.stop_gradient(z), rank).values
    spread = _safe(top[:, 0] - _low(top))
    z = (z - top[:, :1]) / spread[:, None]
    top = tf.math.top_k(z, rank).values
    return z, top[:, 0], _low(top)


def _low(top: tf.Tensor) -> tf.Tensor:
    # The third largest; with four of them the mean of the third and the fourth.
    return tf.reduce_mean(top[:, 2:], axis=-1)


def _safe(spread: tf.Tensor) -> tf.Tensor:
    usable = (spread > 0) & tf.math.is_finite(spread)
    return tf.where(usable, spread, tf.ones_like(spread))


def _row(classes: tf.Tensor) -> tf.Tensor:
    if classes.shape[-1] == 1:
        return tf.cast(classes, tf.float32)
    return tf.one_hot(tf.argmax(classes, axis=-1), classes.shape[-1])


def _difference(z: tf.Tensor, targets: tf.Tensor, goals: tf.Tensor) -> tf.Tensor:
    between = _row(goals) - _row(targets)
    return masked_dot(z, between)


LossName = Literal["cross_entropy", "margin", "dlr"]


def attack_loss(
    logits: tf.Tensor, targets: tf.Tensor, loss: LossName = "cross_entropy"
) -> tf.Tensor:
    """Compute the loss of the target class: the larger, the less it is predicted."""
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
    """Compute a loss of the same gradient direction that cannot vanish."""
    if loss != "cross_entropy":
        return attack_loss(logits, targets, loss)
    z = tf.cast(logits, tf.float32)
    targets = tf.cast(targets, tf.float32)
    if z.shape[-1] == 1:
        return -class_score(z, targets, "margin")
    return _log_ratio(z, targets)


def _log_ratio(z: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
    """Return minus the log odds of hard targets, the cross entropy of soft ones."""
    label = tf.one_hot(tf.argmax(targets, axis=-1), z.shape[-1])
    left_out = (label > 0) & hard_targets(targets)[:, tf.newaxis]
    others = tf.where(left_out, z.dtype.min, z)
    own = masked_dot(z, targets)
    return tf.reduce_logsumexp(others, axis=-1) - own


def misclassified(logits: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
    """Tell whether the decision differs from the target class."""
    if logits.shape[-1] == 1:
        wrong = tf.squeeze((logits > 0) != (targets > 0.5), -1)
    else:
        wrong = tf.argmax(logits, axis=-1) != tf.argmax(targets, axis=-1)
    return wrong | ~has_valid_logits(as_classes(logits))


# Products with gradients stay normal numbers in float32.
_SMALLEST = -60.0


def loss_slope(
    logits: tf.Tensor, targets: tf.Tensor, loss: LossName = "cross_entropy"
) -> tf.Tensor:
    """Compute the gradient of `attack_loss` over that of `ascent_loss`."""
    targets = tf.cast(targets, tf.float32)
    odds = class_score(logits, targets, "margin")
    if loss != "cross_entropy":
        return tf.ones_like(odds)
    slope = tf.exp(tf.maximum(-tf.nn.softplus(odds), _SMALLEST))
    if logits.shape[-1] == 1:
        return slope
    return tf.where(hard_targets(targets), slope, tf.ones_like(slope))
