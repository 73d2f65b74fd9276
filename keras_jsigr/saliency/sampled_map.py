"""An unbiased estimate of the perturbation map from one or two forward passes."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from keras_jsigr.core.choices import BaselineName, ChangeName
from keras_jsigr.core.logits import LogitsFn
from keras_jsigr.core.scores import HeadKind
from keras_jsigr.saliency.baselines import baseline as compute_baseline
from keras_jsigr.saliency.baselines import check_baseline
from keras_jsigr.saliency.bounded_score import (
    bounded_score,
    check_scale,
    mean_score,
)
from keras_jsigr.saliency.change_score import change_score
from keras_jsigr.saliency.interpolate import expand_map
from keras_jsigr.saliency.mask_bank import MaskBank
from keras_jsigr.saliency.perturbation import as_perturbable


def sampled_map(
    logits_fn: LogitsFn,
    x: Any,
    logits: Any,
    targets: Any,
    bank: MaskBank,
    *,
    seed: Any,
    baseline: BaselineName = "blur",
    score: ChangeName = "probability_drop",
    samples: int = 1,
    scale: Any = None,
    kind: HeadKind = "softmax",
) -> tuple[tf.Tensor, tf.Tensor]:
    """Estimate the perturbation map from a few random masks per example.

    `S~ = K / n sum_{k in draw} phi(s_k) hat_k` with n distinct masks drawn uniformly
    per example, so `E[S~] = sum_k phi(s_k) hat_k`, the `expected_map`. `phi` brings a
    score to [0, 1] pointwise: `s / (s + scale)`, or the identity without a scale. The
    estimate reaches up to `K / n`: do not clip it, a penalty that is linear in it stays
    unbiased.

    Args:
        logits_fn: Maps inputs to logits `(B, C)` in inference mode; called n times.
        x: Data `(B, *S)` of the bank's input shape.
        logits: Float `(B, C)` at `x`, already at hand in a training step.
        targets: Float `(B, C)`, or `None` for a score that needs no class.
        bank: The K masks.
        seed: Int32 `(2,)`; new in every step.
        baseline: `"blur"`, `"mean"` or `"zero"`.
        score: `"squared_logits"`, `"probability_drop"` or `"sarfa"`.
        samples: Masks per example, n, 1 to K.
        scale: A typical score, positive: a scalar (such as a running mean of the
            second output) or one per example, `(B,)`; `"squared_logits"` needs it.
        kind: `"softmax"` (exclusive classes) or `"sigmoid"` (independent ones).

    Returns:
        The tuple of the estimate, float32 `(B, *map_shape)`, and the mean raw score of
        the batch, float32 scalar; both without gradient.

    Raises:
        ValueError: If a setting is out of range or `x` does not fit the bank.

    Reference:
        Masks at random after arXiv 1806.07421; masks and scores of arXiv 1711.00138.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.saliency.mask_bank import make_mask_bank
        >>> from keras_jsigr.saliency.sampled_map import sampled_map
        >>> x = tf.constant([[3.0, 0.0]])
        >>> sampled_map(
        ...     lambda x: x,
        ...     x,
        ...     x,
        ...     None,
        ...     make_mask_bank((2,)),
        ...     seed=(1, 2),
        ...     samples=2,
        ...     baseline="zero",
        ...     score="squared_logits",
        ...     scale=4.5,
        ... )[0].numpy().tolist()
        [[0.5, 0.0]]
    """
    check_baseline(baseline)
    check_scale(score, scale)
    if not isinstance(samples, int) or not 1 <= samples <= bank.size:
        raise ValueError(
            f"Got samples {samples!r}, expected an integer from 1 to {bank.size}, the "
            "number of masks. One or two are enough inside a training step."
        )
    x = as_perturbable(x, bank)
    away = compute_baseline(x, baseline, layout=bank.layout) - x
    shape = (-1, *bank.map_shape)
    unit = None if scale is None else tf.reshape(scale, (-1,))
    masks = tf.constant(bank.masks.reshape(bank.size, -1))
    hats = tf.constant(bank.hats.reshape(bank.size, -1))
    # The n largest of K uniform numbers: a draw without replacement.
    lots = tf.random.stateless_uniform((tf.shape(x)[0], bank.size), seed)
    drawn = tf.math.top_k(lots, samples, sorted=False).indices
    estimate, scores = 0.0, []
    for column in tf.unstack(drawn, axis=1):
        mask = tf.reshape(tf.cast(tf.gather(masks, column), x.dtype), shape)
        perturbed = logits_fn(x + expand_map(mask, x) * away)
        scores.append(change_score(logits, perturbed, targets, score, kind))
        weight = bounded_score(scores[-1], score, unit)[:, tf.newaxis]
        estimate += weight * tf.gather(hats, column)
    estimate = tf.reshape(estimate * (bank.size / samples), shape)
    return tf.stop_gradient(estimate), tf.stop_gradient(mean_score(scores))
