"""The score's gradient at the logits, as layers in float16 can carry it."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from keras_jsigr.core.scores import HeadKind, ScoreName, class_score


class UnitPull(NamedTuple):
    """The gradient `ds/dz`, as rows whose largest entry is one and their sizes.

    A confident `log_prob` has a gradient of 1e-8 at the logits, which is zero in
    float16 layers, whatever the type of the logits themselves: pull back the rows and
    multiply what comes out by the sizes.

    Attributes:
        rows: Float32 `(B, C)`.
        size: Float32 `(B,)`, positive, without gradient; one for a row of zeros.
    """

    rows: tf.Tensor
    size: tf.Tensor

    def scaled(self, values: tf.Tensor) -> tf.Tensor:
        """Multiply what the rows were pulled back to by their sizes.

        Args:
            values: Float `(B, ...)`.

        Returns:
            A tensor like `values`.
        """
        size = tf.reshape(self.size, (-1, *[1] * (values.shape.rank - 1)))
        return values * tf.cast(size, values.dtype)


def unit_pull(
    logits: tf.Tensor,
    targets: tf.Tensor,
    score: ScoreName = "log_prob",
    kind: HeadKind = "softmax",
) -> UnitPull:
    """Compute `ds/dz` for pulling it back to the inputs.

    Args:
        logits: Float32 `(B, C)`.
        targets: Float `(B, C)` from `class_targets` or `predicted_targets`.
        score: `"log_prob"`, `"margin"` or `"logit"`, see `class_score`.
        kind: `"softmax"` (exclusive classes) or `"sigmoid"` (independent ones).

    Returns:
        The rows and their sizes.

    Raises:
        ValueError: If the score is unknown.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.core.unit_pull import unit_pull
        >>> pull = unit_pull(tf.constant([[9.0, 0.0]]), tf.constant([[1.0, 0.0]]))
        >>> pull.rows.numpy().tolist(), bool(pull.size[0] < 1e-3)
        ([[1.0, -1.0]], True)
    """
    gradient = score_cotangent(logits, targets, score, kind)
    size = tf.stop_gradient(tf.reduce_max(tf.abs(gradient), axis=-1))
    size = tf.where(size > 0.0, size, tf.ones_like(size))
    return UnitPull(gradient / size[:, tf.newaxis], size)


def score_cotangent(
    logits: tf.Tensor,
    targets: tf.Tensor,
    score: ScoreName = "log_prob",
    kind: HeadKind = "softmax",
) -> tf.Tensor:
    """Compute `ds/dz` as it is.

    Args:
        logits: Float32 `(B, C)`.
        targets: Float `(B, C)` from `class_targets` or `predicted_targets`.
        score: `"log_prob"`, `"margin"` or `"logit"`, see `class_score`.
        kind: `"softmax"` (exclusive classes) or `"sigmoid"` (independent ones).

    Returns:
        Float32 `(B, C)`.

    Raises:
        ValueError: If the score is unknown.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.core.unit_pull import score_cotangent
        >>> score_cotangent(tf.zeros((1, 2)), tf.eye(1, 2)).numpy().tolist()
        [[0.5, -0.5]]
    """
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(logits)
        value = class_score(logits, targets, score, kind)
    return tape.gradient(value, logits)
