"""The difference of logits ratio: a loss that no rescaling of the logits changes."""

from __future__ import annotations

import tensorflow as tf

from keras_jsigr.attacks.objectives.margin import margin_loss
from keras_jsigr.core.weighted_logits import weighted_logits


def dlr_loss(logits: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
    """Compute the difference of logits ratio of the class to leave.

    `DLR = -(z_y - max_{j != y} z_j) / (z_(1) - z_(3))` with `z_(k)` the k-th largest
    logit: positive exactly where misclassified, -1 to 0 elsewhere, and the same for
    `a * z + b` with `a > 0`. With fewer than three classes there is no `z_(3)`: the
    margin `max_{j != y} z_j - z_y` stands in, which is not free of the scale.

    Args:
        logits: Float `(B, C)`; `C = 1` means one sigmoid unit.
        targets: Float `(B, C)` from `class_targets`; the largest entry counts.

    Returns:
        Float32 `(B,)`, finite, with a finite gradient at any scale of the logits.
        Where the first three logits are equal, or the third is minus infinity, the
        margin is divided by one.

    Reference:
        arXiv 2003.01690, eq. 6.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.attacks.objectives.dlr import dlr_loss
        >>> z, target = tf.constant([[4.0, 1.0, 0.0]]), tf.constant([[1.0, 0.0, 0.0]])
        >>> dlr_loss(z, target).numpy().tolist()
        [-0.75]
    """
    z = tf.cast(logits, tf.float32)
    if z.shape[-1] <= 2:
        return margin_loss(z, targets)
    z, first, third = _unit_spread(z, 3)
    return margin_loss(z, targets) / _safe(first - third)


def targeted_dlr_loss(
    logits: tf.Tensor, targets: tf.Tensor, goals: tf.Tensor
) -> tf.Tensor:
    """Compute the difference of logits ratio between a class to reach and one to leave.

    `-(z_y - z_t) / (z_(1) - (z_(3) + z_(4)) / 2)`. With fewer than four classes there
    is no `z_(4)`: the difference `z_t - z_y` stands in.

    Args:
        logits: Float `(B, C)`; `C = 1` means one sigmoid unit.
        targets: Float `(B, C)`: rows of the class to leave, `y`.
        goals: Float `(B, C)`: rows of the class to reach, `t`.

    Returns:
        Float32 `(B,)`, finite, the larger, the more `t` is preferred to `y`.

    Reference:
        arXiv 2003.01690, eq. 7.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.attacks.objectives.dlr import targeted_dlr_loss
        >>> z, rows = tf.constant([[4.0, 3.0, 1.0, 1.0]]), tf.eye(4)
        >>> round(float(targeted_dlr_loss(z, rows[:1], rows[1:2])[0]), 4)
        -0.3333
    """
    z = tf.cast(logits, tf.float32)
    if z.shape[-1] < 4:
        return _difference(z, targets, goals)
    z, first, last = _unit_spread(z, 4)
    return _difference(z, targets, goals) / _safe(first - last)


def _unit_spread(z: tf.Tensor, rank: int) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Rescale `z` by a constant so that the ratio's denominator is about one.

    The ratio and its gradient with respect to the unscaled `z` stay what they are (the
    ratio is homogeneous of degree zero); the square of a tiny denominator, which the
    gradient divides by, cannot underflow any more.
    """
    top = tf.math.top_k(tf.stop_gradient(z), rank).values
    spread = _safe(top[:, 0] - _low(top))
    z = (z - top[:, :1]) / spread[:, None]
    top = tf.math.top_k(z, rank).values
    return z, top[:, 0], _low(top)


def _low(top: tf.Tensor) -> tf.Tensor:
    # The third largest; with four of them the mean of the third and the fourth.
    return tf.reduce_mean(top[:, 2:], axis=-1)


def _safe(spread: tf.Tensor) -> tf.Tensor:
    usable = (spread > 0) & (spread < float("inf"))
    return tf.where(usable, spread, tf.ones_like(spread))


def _row(classes: tf.Tensor) -> tf.Tensor:
    if classes.shape[-1] == 1:
        return tf.cast(classes, tf.float32)
    return tf.one_hot(tf.argmax(classes, axis=-1), classes.shape[-1])


def _difference(z: tf.Tensor, targets: tf.Tensor, goals: tf.Tensor) -> tf.Tensor:
    between = _row(goals) - _row(targets)
    return weighted_logits(z, between)
