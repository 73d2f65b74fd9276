"""The scalar that a prediction rests on, per example."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, get_args

import keras
import numpy as np
import tensorflow as tf


def check_class_indices(labels: np.ndarray[Any, Any], classes: int) -> None:
    """Refuse labels that are no class of the model."""
    values = labels.astype("float64")
    bad = ~((values >= 0) & (values < classes) & (values == np.floor(values)))
    if bad.any():
        raise ValueError(
            f"`y` is out of range: got {labels[bad].ravel()[0]}, expected class "
            f"indices 0 to {classes - 1}. Count the classes from zero."
        )


def check_class_names(names: Any, classes: int) -> tuple[str, ...]:
    """Check the names of the classes; numbers stand in for them."""
    if names is None:
        return tuple(str(number) for number in range(classes))
    found = () if isinstance(names, str) else tuple(names)
    if len(found) != classes or not all(isinstance(name, str) for name in found):
        raise ValueError(
            f"`class_names` does not fit the model: got {names!r}, expected {classes} "
            "strings, one per class in the order of the outputs."
        )
    return found


def masked_dot(logits: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """Compute `sum_c w_c z_c`, where nothing times minus infinity is nothing."""
    return tf.reduce_sum(tf.math.multiply_no_nan(logits, weights), axis=-1)


ScoreName = Literal["log_prob", "margin", "logit"]
HeadKind = Literal["softmax", "sigmoid"]
SCORES: tuple[str, ...] = get_args(ScoreName)
# Hard targets are exactly one; the room is for targets kept in half precision.
_HARD = 1.0 - 1e-3


def class_targets(y: Any, logits: tf.Tensor) -> tf.Tensor:
    """Bring labels of any Keras form to float targets shaped like the logits."""
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


def target_rows(y: Any, examples: int, classes: int) -> tf.Tensor:
    """Check labels and bring them to the form of the logits."""
    labels = np.asarray(y)
    if labels.dtype.kind in "SU" or any(isinstance(v, str) for v in labels.flat[:1]):
        raise TypeError(
            f"`y` holds names, such as '{labels.flat[0]}': expected class indices. "
            "Pass [class_names.index(name) for name in y]."
        )
    if labels.ndim == 0 or len(labels) != examples:
        raise ValueError(
            f"`y` does not match `x`: got shape {labels.shape} for {examples} "
            "examples, expected one label per example. Select the same rows of both."
        )
    if labels.shape in ((examples,), (examples, 1)):
        check_class_indices(labels, classes)
    elif labels.shape == (examples, classes):
        _check_rows(labels)
    else:
        raise ValueError(
            f"`y` has shape {labels.shape}, expected ({examples},), ({examples}, 1) "
            f"or ({examples}, {classes}). Pass class indices or one-hot rows."
        )
    return class_targets(labels.astype("float32"), tf.zeros((1, classes)))


def _check_rows(labels: np.ndarray[Any, Any]) -> None:
    values = labels.astype("float64")
    bad = ~((values >= 0).all(axis=1) & (np.abs(values.sum(axis=1) - 1.0) < 1e-3))
    if bad.any():
        raise ValueError(
            f"`y` has a row that is no one-hot row: got {labels[bad][0]}, expected "
            "values >= 0 of sum one. Independent labels are attacked one at a time, as two "
            "classes: pass `lambda x: model(x)[:, k : k + 1]` as the model and y[:, k]."
        )


def predicted_targets(logits: tf.Tensor, kind: HeadKind = "softmax") -> tf.Tensor:
    """Turn logits into the targets of the model's own decision."""
    logits = tf.stop_gradient(logits)
    if kind == "sigmoid" or logits.shape[-1] == 1:
        return tf.cast(logits > 0, tf.float32)
    return tf.one_hot(tf.argmax(logits, axis=-1), logits.shape[-1])


def hard_targets(targets: tf.Tensor) -> tf.Tensor:
    """Tell which rows name one class and not a mixture of several."""
    return tf.reduce_max(targets, axis=-1) >= _HARD


def class_score(
    logits: tf.Tensor,
    targets: tf.Tensor,
    score: ScoreName = "log_prob",
    kind: HeadKind = "softmax",
) -> tf.Tensor:
    """Compute the scalar `s_b` that the decision for the target class rests on."""
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
    # For p_y near one log_softmax loses the gradient of z_y; the log odds keep it.
    soft = tf.reduce_sum(targets * tf.nn.log_softmax(z), axis=-1)
    return tf.where(hard_targets(targets), tf.math.log_sigmoid(odds), soft)


def _log_odds(z: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
    target = tf.one_hot(tf.argmax(targets, axis=-1), z.shape[-1])
    others = tf.where(target > 0, tf.fill(tf.shape(z), z.dtype.min), z)
    own = masked_dot(z, target)
    return own - tf.reduce_logsumexp(others, axis=-1)


class NormalizedScoreCotangent(NamedTuple):
    """The gradient `ds/dz`, as rows whose largest entry is one and their sizes."""

    rows: tf.Tensor
    size: tf.Tensor

    def scaled(self, values: tf.Tensor) -> tf.Tensor:
        """Multiply what the rows were pulled back to by their sizes."""
        size = tf.reshape(self.size, (-1, *[1] * (values.shape.rank - 1)))
        return values * tf.cast(size, values.dtype)


def unit_pull(
    logits: tf.Tensor,
    targets: tf.Tensor,
    score: ScoreName = "log_prob",
    kind: HeadKind = "softmax",
) -> NormalizedScoreCotangent:
    """Compute `ds/dz` for pulling it back to the inputs."""
    gradient = score_cotangent(logits, targets, score, kind)
    size = tf.stop_gradient(tf.reduce_max(tf.abs(gradient), axis=-1))
    size = tf.where(size > 0.0, size, tf.ones_like(size))
    return NormalizedScoreCotangent(gradient / size[:, tf.newaxis], size)


def score_cotangent(
    logits: tf.Tensor,
    targets: tf.Tensor,
    score: ScoreName = "log_prob",
    kind: HeadKind = "softmax",
) -> tf.Tensor:
    """Compute `ds/dz` as it is."""
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(logits)
        value = class_score(logits, targets, score, kind)
    return tape.gradient(value, logits)


def valid_label_mask(outputs: Any, labels: Any, ignored: Sequence[int]) -> Any:
    """Tell per example whether its label is one to answer."""
    indices = tf.convert_to_tensor(keras.tree.flatten(labels)[0])
    keep = tf.ones_like(outputs[:, 0], tf.float32)
    for label in ignored:  # of class indices, `(B,)` or `(B, 1)`, as are the losses
        same = tf.reshape(indices, (-1,)) == tf.cast(label, indices.dtype)
        keep *= 1.0 - tf.cast(same, tf.float32)
    return keep


def ignore_class_weights(outputs: Any, labels: Any, ignored: Sequence[int]) -> Any:
    """Weigh the examples of a batch as a loss with `ignore_class` does."""
    if not ignored:
        return None
    keep = valid_label_mask(outputs, labels, ignored)
    return tf.math.divide_no_nan(keep, tf.reduce_mean(keep))
