"""Perturbation saliency: how the outputs change where a mask occludes the input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf

from keras_jsigr.core import arguments
from keras_jsigr.core.arguments import CHANGES, BaselineName, ChangeName
from keras_jsigr.core.batching import Core, as_fit_sees, probe_of, sequential_map
from keras_jsigr.core.inputs import as_float
from keras_jsigr.core.logits import LogitsFn, as_logits
from keras_jsigr.core.padding import without_padding
from keras_jsigr.core.scores import HeadKind
from keras_jsigr.saliency import masks as masking
from keras_jsigr.saliency.base import (
    Explainer,
    SaliencyMethod,
    check_replaceable,
    layout_of,
    setting,
    target_probability,
    targets_of,
)
from keras_jsigr.saliency.masks import Layout, MaskBank, expand_map, interpolate

# Rounding errors after all layers of a network, in last digits of float32.
_LOGITS_OFF, _PROBABILITIES_OFF, _DIGIT = 32.0, 8.0, float(np.finfo(np.float32).eps)


def squared_logits(logits: Any, perturbed: Any) -> tf.Tensor:
    """Compute `1/2 ||z - z'||^2` of logits `(B, C)`, which needs no class."""
    change = tf.cast(logits, tf.float32) - tf.cast(perturbed, tf.float32)
    return tf.stop_gradient(0.5 * tf.reduce_sum(tf.square(change), axis=-1))


def probability_drop(
    logits: Any, perturbed: Any, targets: Any, kind: HeadKind = "softmax"
) -> tf.Tensor:
    """Compute `max(0, p_y(x) - p_y(x'))` from the logits at `x` and `x'`."""
    before = target_probability(logits, targets, kind)
    after = target_probability(perturbed, targets, kind)
    return tf.stop_gradient(tf.maximum(before - after, 0.0))


def sarfa(logits: Any, perturbed: Any, targets: Any) -> tf.Tensor:
    """Compute the specific and relevant change, `S = 2 K dp / (K + dp)`, or 0."""
    drop = probability_drop(logits, perturbed, targets)
    z, other = tf.cast(logits, tf.float32), tf.cast(perturbed, tf.float32)
    classes = z.shape[-1]
    if classes == 1:
        divergence = tf.zeros_like(drop)  # A single other class always has p = 1.
    else:
        target = tf.one_hot(tf.argmax(targets, -1), classes, True, False, dtype=bool)
        low = tf.fill(tf.shape(z), -1e30)
        p = tf.nn.log_softmax(tf.where(target, low, z))
        q = tf.nn.log_softmax(tf.where(target, low, other))
        terms = tf.where(target, tf.zeros_like(z), tf.exp(p) * (p - q))
        divergence = tf.maximum(tf.reduce_sum(terms, axis=-1), 0.0)
    same = 1.0 / (1.0 + divergence)
    return tf.stop_gradient(tf.math.divide_no_nan(2.0 * same * drop, same + drop))


def change_score(
    logits: Any,
    perturbed: Any,
    targets: Any,
    score: ChangeName = "squared_logits",
    kind: HeadKind = "softmax",
) -> tf.Tensor:
    """Compute the change score of a name from logits at an example and beside it."""
    check_change("score", score)
    if targets is None and score != "squared_logits":
        raise ValueError(
            f"Got no targets for the change score {score!r}, expected (B, C). "
            "Pass one-hot rows of the labels."
        )
    if score == "sarfa" and kind == "sigmoid" and logits.shape[-1] != 1:
        raise ValueError(
            "Got score 'sarfa' with independent classes, expected exclusive ones. "
            "Use 'squared_logits' or 'probability_drop'."
        )
    if score == "squared_logits":
        return squared_logits(logits, perturbed)
    if score == "probability_drop":
        return probability_drop(logits, perturbed, targets, kind)
    return sarfa(logits, perturbed, targets)


def check_change(name: str, score: str) -> None:
    """Refuse a name that is no change score."""
    advice = "Use 'squared_logits' to explain all outputs at once."
    arguments.choice(name, score, CHANGES, advice=advice)


def bounded_score(scores: Any, score: ChangeName, scale: Any = None) -> tf.Tensor:
    """Map change scores to [0, 1], each by itself: `phi(s) = s / (s + scale)`."""
    check_change("score", score)
    if score == "squared_logits" and scale is None:
        raise ValueError(
            "Got no scale for the score 'squared_logits', expected a positive number, "
            "such as a running mean of the second output. Or use 'probability_drop'."
        )
    scores = tf.cast(scores, tf.float32)
    if scale is None:
        return scores
    return tf.math.divide_no_nan(scores, scores + tf.cast(scale, tf.float32))


def mean_score(scores: Any) -> tf.Tensor:
    """Average raw scores over examples and masks; zero for an empty batch."""
    total = tf.reduce_sum(tf.cast(scores, tf.float32))
    return tf.math.divide_no_nan(total, tf.cast(tf.size(scores), tf.float32))


def perturbation_coefficients(
    logits_fn: LogitsFn,
    x: Any,
    targets: Any,
    bank: MaskBank,
    *,
    baseline: BaselineName = "blur",
    score: ChangeName = "squared_logits",
    kind: HeadKind = "softmax",
) -> tf.Tensor:
    """Score every mask of the bank on every example."""
    check_change("score", score)
    x, away = _ways_out(x, bank, baseline)
    logits = tf.stop_gradient(logits_fn(x))
    chosen = targets(logits) if callable(targets) else targets

    def score_of(mask: tf.Tensor) -> tf.Tensor:
        step = expand_map(tf.cast(mask, x.dtype)[tf.newaxis], x) * away
        return change_score(logits, logits_fn(x + step), chosen, score, kind)

    scores = sequential_map(score_of, tf.constant(bank.masks), (None,))
    coefficients = _above_rounding(tf.transpose(scores), logits, score)
    return tf.ensure_shape(coefficients, (x.shape[0], bank.size))


def _above_rounding(scores: tf.Tensor, logits: tf.Tensor, score: str) -> tf.Tensor:
    """Set the scores of an example to zero if all of them are rounding errors."""
    tolerance: Any = _PROBABILITIES_OFF * _DIGIT
    if score == "squared_logits":
        size = tf.reduce_sum(tf.cast(logits, tf.float32) ** 2, axis=-1, keepdims=True)
        tolerance = 0.5 * (_LOGITS_OFF * _DIGIT) ** 2 * size
    rounding = tf.reduce_max(scores, axis=-1, keepdims=True) <= tolerance
    return tf.stop_gradient(tf.where(rounding, 0.0, scores))


def _ways_out(x: Any, bank: MaskBank, kind: BaselineName) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the data without gradient, and the way from them to their baseline."""
    x = tf.stop_gradient(as_float(x))
    if tuple(x.shape[1:]) != bank.input_shape:
        raise ValueError(
            f"Got data of shape {tuple(x.shape)}, expected (B, "
            f"{', '.join(map(str, bank.input_shape))}). "
            "Make the mask bank for the shape of this data."
        )
    return x, masking.compute_baseline(x, kind, layout=bank.layout) - x


def normalize_coefficients(coefficients: Any) -> tf.Tensor:
    """Divide the coefficients `(B, K)` of every example by their maximum, if not 0."""
    c = tf.cast(coefficients, tf.float32)
    return tf.math.divide_no_nan(c, tf.reduce_max(c, axis=-1, keepdims=True))


def expected_map(
    logits_fn: LogitsFn,
    x: Any,
    targets: Any,
    bank: MaskBank,
    *,
    score: ChangeName = "probability_drop",
    scale: Any = None,
    **settings: Any,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Compute the expectation of `sampled_map` from all K masks."""
    settings["score"] = score
    scores = perturbation_coefficients(logits_fn, x, targets, bank, **settings)
    unit = None if scale is None else tf.reshape(scale, (-1, 1))
    saliency = interpolate(bank, bounded_score(scores, score, unit))
    return tf.stop_gradient(saliency), tf.stop_gradient(mean_score(scores))


def perturbation_map(
    model: Any,
    x: Any,
    y: Any = None,
    *,
    grid: int | Sequence[int] = 5,
    baseline: BaselineName = "blur",
    score: ChangeName = "squared_logits",
    kind: HeadKind | None = None,
    layout: Layout | None = None,
    batch_size: int = 128,
    normalize: bool = True,
) -> Any:
    """Map how much the outputs change where each part of the input is occluded.

    `S = sum_k hat_k S_k`, `S_k = score(f(x), f(x (1 - m_k) + A(x) m_k))`, with `S_k`
    divided by its maximum over k if `normalize`. The same as
    `explain(model, x, y, method="perturbation")`: arguments, result and errors are
    those of `explain`, and the settings those of `Perturbation`.

    Reference:
        arXiv 1711.00138 (masks, blur, `squared_logits`), arXiv 1912.12191 (`sarfa`).

    Example:
        >>> import keras_jsigr as kj
        >>> x = [[1.0, 1.0]]
        >>> kj.perturbation_map(lambda x: x * [2.0, 0.0], x, baseline="zero").tolist()
        [[1.0, 0.0]]
    """
    settings: Any = {"score": score, "kind": kind, "layout": layout, "grid": grid}
    x = as_fit_sees(x)
    method = Perturbation(baseline=baseline, normalize=normalize, **settings)
    return method.explainer(model, probe_of(x), batch_size)(x, y)


def perturbation_explainer(
    model: Any, probe: Any, bank: MaskBank, *, batch_size: int = 128, **settings: Any
) -> Explainer:
    """Compile `perturbation_map` for given masks, to call it as `f(x, y=None)`."""
    method = _BankMethod(layout=bank.layout, bank=bank, **settings)
    return method.explainer(model, probe, batch_size)


@dataclass(frozen=True, kw_only=True)
class Perturbation(SaliencyMethod):
    """Compute how much the outputs change where a blurred disc covers the input.

    The same as `perturbation_map`: a forward pass for the input and one per cell.

    Args:
        grid: G for G x G masks, or `(rows, columns)`.
        baseline: What occludes: `"blur"`, `"mean"` or `"zero"` (the value 0).
        score: `"squared_logits"`, `"probability_drop"` or `"sarfa"`.
        normalize: Whether to bring every map to [0, 1].

    Reference:
        arXiv 1711.00138.

    Example:
        >>> from keras_jsigr.saliency import explain
        >>> x = [[2.0, 0.0]]
        >>> explain(lambda x: 2.0 * x, x, method="perturbation", baseline="zero")
        array([[1., 0.]], dtype=float32)
    """

    grid: int | Sequence[int] = 5
    baseline: BaselineName = setting("blur", masking.check_baseline)
    score: ChangeName = setting("squared_logits", check_change)
    normalize: bool = setting(True, arguments.choice, (False, True))

    def core(self, model: Any, probe: Any) -> Core:
        """Return the traceable function of `(x, y)`; see `SaliencyMethod`."""
        layout = layout_of(model, probe, self.layout)
        bank = masking.make_mask_bank(tuple(probe.shape[1:]), self.grid, layout=layout)
        return self.core_of(model, probe, bank)

    def core_of(self, model: Any, probe: Any, bank: MaskBank, maps: bool = True) -> Core:
        """Return `core` for the masks of a bank: of maps, or of their coefficients."""
        layout = layout_of(model, probe, bank.layout)
        check_replaceable(model, probe, self.baseline, layout)
        beside = without_padding(model, as_logits(model, probe))
        kind = self.known_kind
        settings: Any = {"baseline": self.baseline, "score": self.score, "kind": kind}

        def explain(x: tf.Tensor, y: tf.Tensor | None) -> tf.Tensor:
            targets = targets_of(y, kind)
            found = perturbation_coefficients(beside(x), x, targets, bank, **settings)
            found = normalize_coefficients(found) if self.normalize else found
            return interpolate(bank, found) if maps else found

        return explain

    @property
    def why_zero(self) -> str:
        """Cause and way out, where no occlusion changed anything in any example."""
        if self.score != "squared_logits":
            return ""
        return (
            "no occlusion changes the outputs. Are the inputs constant? Use another "
            "`baseline`, such as 'zero'."
        )


@dataclass(frozen=True, kw_only=True)
class SARFA(Perturbation):
    """Compute where covering the input lowers the target class and little else.

    As `Perturbation`, for exclusive classes: `kind="sigmoid"` is refused for several.

    Reference:
        arXiv 1912.12191.

    Example:
        >>> from keras_jsigr.saliency import explain
        >>> explain(lambda x: x, [[2.0, 1.0]], method="sarfa", baseline="zero")
        array([[1., 0.]], dtype=float32)
    """

    score: ChangeName = field(default="sarfa", init=False, repr=False)


@dataclass(frozen=True, kw_only=True)
class _BankMethod(Perturbation):
    """Perturbation by the masks of a bank: maps, or their coefficients."""

    bank: MaskBank
    maps: bool = True

    def core(self, model: Any, probe: Any) -> Core:
        return self.core_of(model, probe, self.bank, self.maps)

    def check_maps(self, maps: Any) -> None:
        """Leave the maps to the caller."""


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
    """Estimate the perturbation map from a few random masks per example."""
    if not isinstance(samples, int) or not 1 <= samples <= bank.size:
        raise ValueError(
            f"Got samples {samples!r}, expected an integer from 1 to {bank.size}, the "
            "number of masks. One or two are enough inside a training step."
        )
    x, away = _ways_out(x, bank, baseline)
    shape = (-1, *bank.map_shape)
    unit = None if scale is None else tf.reshape(scale, (-1,))
    masks = tf.constant(bank.masks.reshape(bank.size, -1))
    hats = tf.constant(bank.hats.reshape(bank.size, -1))
    # The n largest of K uniform numbers: a draw without replacement.
    uniform = tf.random.stateless_uniform((tf.shape(x)[0], bank.size), seed)
    drawn = tf.math.top_k(uniform, samples, sorted=False).indices
    estimate, scores = 0.0, []
    for column in tf.unstack(drawn, axis=1):
        mask = tf.reshape(tf.cast(tf.gather(masks, column), x.dtype), shape)
        perturbed = logits_fn(x + expand_map(mask, x) * away)
        scores.append(change_score(logits, perturbed, targets, score, kind))
        weight = bounded_score(scores[-1], score, unit)[:, tf.newaxis]
        estimate += weight * tf.gather(hats, column)
    estimate = tf.reshape(estimate * (bank.size / samples), shape)
    return tf.stop_gradient(estimate), tf.stop_gradient(mean_score(scores))
