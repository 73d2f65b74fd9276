"""The change scores by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from keras_jsigr.core import settings
from keras_jsigr.core.choices import CHANGES, ChangeName
from keras_jsigr.core.scores import HeadKind
from keras_jsigr.saliency.perturbation_scores import (
    probability_drop,
    sarfa,
    squared_logits,
)


def change_score(
    logits: Any,
    perturbed: Any,
    targets: Any,
    score: ChangeName = "squared_logits",
    kind: HeadKind = "softmax",
) -> tf.Tensor:
    """Compute the change score of that name.

    Args:
        logits: Float `(B, C)` at the example.
        perturbed: Float `(B, C)` at the perturbed example.
        targets: Float `(B, C)` from `class_targets` or `predicted_targets`; may be
            `None` for `"squared_logits"`.
        score: `"squared_logits"`, `"probability_drop"` or `"sarfa"`.
        kind: `"softmax"` (exclusive classes) or `"sigmoid"` (independent ones).

    Returns:
        Float32 `(B,)`, without gradient.

    Raises:
        ValueError: If the score is unknown, lacks targets, or is `"sarfa"` with
            independent classes.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.saliency.change_score import change_score
        >>> change_score([[2.0, 0.0]], [[0.0, 0.0]], [[1.0, 0.0]]).numpy().tolist()
        [2.0]
    """
    check_change(score)
    if targets is None and score != "squared_logits":
        raise ValueError(
            f"Got no targets for the change score {score!r}, expected (B, C). "
            "Pass `class_targets(y, logits)` or `predicted_targets(logits)`."
        )
    if score == "sarfa" and kind == "sigmoid" and logits.shape[-1] != 1:
        raise ValueError(
            "Got score 'sarfa' with independent classes, expected exclusive ones. "
            "Use 'squared_logits' or 'probability_drop'."
        )
    scores: dict[str, Callable[[], tf.Tensor]] = {
        "squared_logits": lambda: squared_logits(logits, perturbed),
        "probability_drop": lambda: probability_drop(logits, perturbed, targets, kind),
        "sarfa": lambda: sarfa(logits, perturbed, targets),
    }
    return scores[score]()


def check_change(score: str) -> None:
    """Refuse a name that is no change score.

    Args:
        score: The name.

    Raises:
        ValueError: If it is not one of `CHANGES`.

    Example:
        >>> from keras_jsigr.saliency.change_score import check_change
        >>> check_change("sarfa")
    """
    advice = "Use 'squared_logits' where no class is to be singled out."
    settings.choice("score", score, CHANGES, advice=advice)
