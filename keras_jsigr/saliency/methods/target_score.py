"""The scores that can be explained without a gradient."""

from __future__ import annotations

from typing import Literal, get_args

import tensorflow as tf

from keras_jsigr.core import settings
from keras_jsigr.core.scores import HeadKind, class_score
from keras_jsigr.saliency.perturbation_scores import target_probability

TargetScoreName = Literal["prob", "log_prob", "margin", "logit"]


def target_score(
    logits: tf.Tensor,
    targets: tf.Tensor,
    score: TargetScoreName = "prob",
    kind: HeadKind = "softmax",
) -> tf.Tensor:
    """Compute the probability of the target class, or one of the class scores.

    Args:
        logits: Float `(B, C)`.
        targets: Float `(B, C)` from `class_targets` or `predicted_targets`.
        score: `"prob"`, or `"log_prob"`, `"margin"` or `"logit"`, see `class_score`.
        kind: `"softmax"` (exclusive classes) or `"sigmoid"` (independent ones).

    Returns:
        Float32 `(B,)`.

    Raises:
        ValueError: If `score` is unknown.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.saliency.methods.target_score import target_score
        >>> target_score(tf.zeros((1, 4)), tf.one_hot([2], 4)).numpy().tolist()
        [0.25]
    """
    check_target_score(score)
    if score == "prob":
        return target_probability(logits, targets, kind)
    return class_score(logits, targets, score, kind)


def check_target_score(score: str) -> None:
    """Refuse a name that is no score.

    Args:
        score: The name.

    Raises:
        ValueError: If it is unknown.

    Example:
        >>> from keras_jsigr.saliency.methods.target_score import check_target_score
        >>> check_target_score("prob")
    """
    settings.choice("score", score, get_args(TargetScoreName))
