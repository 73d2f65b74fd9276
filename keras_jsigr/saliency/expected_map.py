"""The map that `sampled_map` estimates."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from keras_jsigr.core.choices import BaselineName, ChangeName
from keras_jsigr.core.logits import LogitsFn
from keras_jsigr.core.scores import HeadKind
from keras_jsigr.saliency.bounded_score import (
    bounded_score,
    check_scale,
    mean_score,
)
from keras_jsigr.saliency.interpolate import interpolate
from keras_jsigr.saliency.mask_bank import MaskBank
from keras_jsigr.saliency.perturbation import perturbation_coefficients


def expected_map(
    logits_fn: LogitsFn,
    x: Any,
    targets: Any,
    bank: MaskBank,
    *,
    baseline: BaselineName = "blur",
    score: ChangeName = "probability_drop",
    scale: Any = None,
    kind: HeadKind = "softmax",
) -> tuple[tf.Tensor, tf.Tensor]:
    """Compute what `sampled_map` estimates, from all K masks.

    `E[S~] = sum_k phi(s_k) hat_k`, within [0, 1].

    Args:
        logits_fn: Maps inputs to logits `(B, C)` in inference mode.
        x: Data `(B, *S)` of the bank's input shape.
        targets: Float `(B, C)`, or `None` for a score that needs no class.
        bank: The K masks.
        baseline: `"blur"`, `"mean"` or `"zero"`.
        score: `"squared_logits"`, `"probability_drop"` or `"sarfa"`.
        scale: A typical score, positive, scalar or `(B,)`; `"squared_logits"` needs it.
        kind: `"softmax"` (exclusive classes) or `"sigmoid"` (independent ones).

    Returns:
        The tuple of the map, float32 `(B, *map_shape)`, and the mean raw score, float32
        scalar; both without gradient.

    Raises:
        ValueError: If a setting is out of range or `x` does not fit the bank.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.saliency.mask_bank import make_mask_bank
        >>> from keras_jsigr.saliency.expected_map import expected_map
        >>> expected_map(
        ...     lambda x: x,
        ...     tf.constant([[3.0, 0.0]]),
        ...     None,
        ...     make_mask_bank((2,)),
        ...     baseline="zero",
        ...     score="squared_logits",
        ...     scale=4.5,
        ... )[0].numpy().tolist()
        [[0.5, 0.0]]
    """
    check_scale(score, scale)
    scores = perturbation_coefficients(
        logits_fn, x, targets, bank, baseline=baseline, score=score, kind=kind
    )
    unit = None if scale is None else tf.reshape(scale, (-1, 1))
    saliency = interpolate(bank, bounded_score(scores, score, unit))
    return tf.stop_gradient(saliency), tf.stop_gradient(mean_score(scores))
