"""The gradient of the decision's score with respect to the input."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from keras_jsigr.core.as_float import as_float
from keras_jsigr.core.logits import LogitsFn
from keras_jsigr.core.scores import HeadKind, ScoreName
from keras_jsigr.core.unit_pull import unit_pull


def input_gradient(
    logits_fn: LogitsFn,
    x: Any,
    targets: Any,
    score: ScoreName = "log_prob",
    kind: HeadKind = "softmax",
) -> tf.Tensor:
    """Compute `d s_b / d x_b` with one forward and one backward pass.

    An outer tape that watches the weights can differentiate the result again. Tiny
    gradients survive layers in float16.

    Args:
        logits_fn: Maps inputs to logits `(B, C)`, each example by itself (inference
            mode); one call.
        x: Data `(B, *S)`; integers are taken as float32.
        targets: Float `(B, C)` from `class_targets` or `predicted_targets`, or a
            function that makes them from the logits (it saves a forward pass).
        score: `"log_prob"`, `"margin"` or `"logit"`, see `class_score`.
        kind: `"softmax"` (exclusive classes) or `"sigmoid"` (independent ones).

    Returns:
        Tensor shaped like `x`, of its float dtype.

    Raises:
        ValueError: If the score is unknown or the logits do not depend on `x`.

    Reference:
        arXiv 1312.6034 (`logit`), arXiv 1711.09404 (`log_prob`).

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.saliency.gradient import input_gradient
        >>> input_gradient(
        ...     lambda x: 3.0 * x, tf.ones((1, 2)), tf.constant([[0.0, 1.0]]), "logit"
        ... ).numpy().tolist()
        [[0.0, 3.0]]
    """
    x = as_float(x)
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(x)
        logits = tf.cast(logits_fn(x), tf.float32)
    chosen = tf.stop_gradient(targets(logits) if callable(targets) else targets)
    pull = unit_pull(logits, chosen, score, kind)
    gradient = tape.gradient(logits, x, pull.rows)
    if gradient is None:
        raise ValueError(
            "Got logits that do not depend on the input through differentiable "
            "operations, expected a differentiable model. Remove casts to integers, "
            "lookups and NumPy code between the input and the logits."
        )
    return pull.scaled(gradient)
