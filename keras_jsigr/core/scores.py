"""The scalar that a prediction rests on, per example."""

from __future__ import annotations

from typing import Any, Literal, get_args

import tensorflow as tf

from keras_jsigr.core.weighted_logits import weighted_logits

ScoreName = Literal["log_prob", "margin", "logit"]
HeadKind = Literal["softmax", "sigmoid"]
SCORES: tuple[str, ...] = get_args(ScoreName)
# Hard targets are exactly one; the room is for targets kept in half precision.
_HARD = 1.0 - 1e-3


def class_targets(y: Any, logits: tf.Tensor) -> tf.Tensor:
    """Bring labels of any Keras form to float targets shaped like the logits.

    Args:
        y: Labels: integers `(B,)` or `(B, 1)`, or one-hot, multi-hot or soft rows
            `(B, C)`. For one logit per example: 0 or 1, `(B,)` or `(B, 1)`.
        logits: Float `(B, C)`.

    Returns:
        Float32 `(B, C)`; a row of zeros for an index that is no class.

    Raises:
        ValueError: If the labels have neither of these shapes.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.core.scores import class_targets
        >>> class_targets([2], tf.zeros((1, 3))).numpy().tolist()
        [[0.0, 0.0, 1.0]]
    """
    y = tf.convert_to_tensor(y)
    classes = logits.shape[-1]
    if classes == 1:
        return tf.reshape(tf.cast(y, tf.float32), (-1, 1))
    if y.shape.rank == 2 and y.shape[-1] in (None, classes):
        # A data pipeline may have lost the side: then it is checked when this runs.
        return tf.cast(tf.ensure_shape(y, (None, classes)), tf.float32)
    if y.shape.rank == 1 or (y.shape.rank == 2 and y.shape[-1] == 1):
        return tf.one_hot(tf.cast(tf.reshape(y, (-1,)), tf.int32), classes)
    raise ValueError(
        f"Labels do not fit the model: got shape {tuple(y.shape)}, expected (B,), "
        f"(B, 1) or (B, {classes}). Pass class indices or one-hot rows."
    )


def predicted_targets(logits: tf.Tensor, kind: HeadKind = "softmax") -> tf.Tensor:
    """Turn logits into the targets of the model's own decision.

    Args:
        logits: Float `(B, C)`.
        kind: `"softmax"` picks the largest logit; `"sigmoid"` every positive one.

    Returns:
        Float32 `(B, C)` of zeros and ones, without gradient.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.core.scores import predicted_targets
        >>> predicted_targets(tf.constant([[0.1, 0.9]])).numpy().tolist()
        [[0.0, 1.0]]
    """
    logits = tf.stop_gradient(logits)
    if kind == "sigmoid" or logits.shape[-1] == 1:
        return tf.cast(logits > 0, tf.float32)
    return tf.one_hot(tf.argmax(logits, axis=-1), logits.shape[-1])


def hard_targets(targets: tf.Tensor) -> tf.Tensor:
    """Tell which rows name one class and not a mixture of several.

    Args:
        targets: Float `(B, C)`.

    Returns:
        Bool `(B,)`.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.core.scores import hard_targets
        >>> hard_targets(tf.constant([[0.0, 1.0], [0.2, 0.8]])).numpy().tolist()
        [True, False]
    """
    return tf.reduce_max(targets, axis=-1) >= _HARD


def class_score(
    logits: tf.Tensor,
    targets: tf.Tensor,
    score: ScoreName = "log_prob",
    kind: HeadKind = "softmax",
) -> tf.Tensor:
    """Compute the scalar `s_b` that the decision for the target class rests on.

    With a softmax head and target class `y`:

    - `log_prob`: `z_y - logsumexp_j z_j`;
    - `margin`: `z_y - logsumexp_{j != y} z_j` (the log odds: never saturates);
    - `logit`: `z_y`.

    With a sigmoid head the classes are independent: `log_prob` sums
    `log sigmoid(+-z_c)`, `margin` and `logit` sum `+-z_c`, plus where the target is
    one. Soft targets weigh the classes of `log_prob` and `logit`, `margin` takes their
    largest; with a sigmoid head they weigh presence and absence of each class. With a
    softmax head a row of zeros, as of an `ignore_class`, has the score zero.

    Args:
        logits: Float `(B, C)`; computed in float32.
        targets: Float `(B, C)` from `class_targets` or `predicted_targets`.
        score: `"log_prob"`, `"margin"` or `"logit"`.
        kind: `"softmax"` (exclusive classes) or `"sigmoid"` (independent ones).

    Returns:
        Float32 `(B,)`.

    Raises:
        ValueError: If `score` is unknown.

    Reference:
        arXiv 1711.09404 (log_prob); the log odds as in arXiv 2207.13036's relatives.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.core.scores import class_score, class_targets
        >>> z = tf.constant([[2.0, 1.0]])
        >>> class_score(z, class_targets([0], z), "margin").numpy().tolist()
        [1.0]
    """
    if score not in SCORES:
        raise ValueError(
            f"Unknown score: got {score!r}, expected one of {SCORES}. "
            "Use 'margin' if the gradient of 'log_prob' vanishes."
        )
    z = tf.cast(logits, tf.float32)
    if kind == "sigmoid" or z.shape[-1] == 1:
        per_class = (2.0 * targets - 1.0) * z
        if score == "log_prob":  # of the state of the class that the target names
            present, absent = tf.math.log_sigmoid(z), tf.math.log_sigmoid(-z)
            per_class = targets * present + (1.0 - targets) * absent
        return tf.reduce_sum(per_class, axis=-1)
    if score == "logit":
        return tf.reduce_sum(targets * z, axis=-1)
    odds = _log_odds(z, targets)
    if score == "margin":  # the largest of no targets at all is no class
        named = tf.reduce_max(targets, axis=-1) > 0.0
        return tf.where(named, odds, tf.zeros_like(odds))
    # Where p_y rounds to one, the gradient of log_softmax loses z_y; that of the log
    # odds keeps it. Both forms are equal for one-hot rows.
    soft = tf.reduce_sum(targets * tf.nn.log_softmax(z), axis=-1)
    return tf.where(hard_targets(targets), tf.math.log_sigmoid(odds), soft)


def _log_odds(z: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
    target = tf.one_hot(tf.argmax(targets, axis=-1), z.shape[-1])
    others = tf.where(target > 0, tf.fill(tf.shape(z), z.dtype.min), z)
    own = weighted_logits(z, target)
    return own - tf.reduce_logsumexp(others, axis=-1)
