"""Perturbation saliency: what does the decision lose where the input is occluded?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_jsigr.core import arguments
from keras_jsigr.core.arguments import CHANGES, BaselineName, ChangeName
from keras_jsigr.core.batching import (
    BatchedExplainer,
    Core,
    as_fit_sees,
    map_each,
    probe_of,
)
from keras_jsigr.core.heads import ignored_labels
from keras_jsigr.core.inputs import as_float
from keras_jsigr.core.logits import LogitsFn, as_logits
from keras_jsigr.core.padding import without_padding
from keras_jsigr.core.scores import HeadKind, class_targets, predicted_targets
from keras_jsigr.saliency.base import (
    SaliencyMethod,
    decision_of,
    probability_drop,
    sarfa,
    squared_logits,
)
from keras_jsigr.saliency.masks import (
    Layout,
    MaskBank,
    check_baseline,
    compute_baseline,
    expand_map,
    interpolate,
    make_mask_bank,
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
        >>> from keras_jsigr.saliency.perturbation import change_score
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
    """Refuse a name that is no change score."""
    advice = "Use 'squared_logits' where no class is to be singled out."
    arguments.choice("score", score, CHANGES, advice=advice)


def bounded_score(scores: Any, score: ChangeName, scale: Any = None) -> tf.Tensor:
    """Bring change scores to [0, 1] one by one, `phi(s)`.

    `phi(s) = s / (s + scale)`, zero for `s = 0`; `phi(s) = s` without a scale, for the
    scores that lie in [0, 1] themselves.

    Args:
        scores: Float, any shape, non-negative.
        score: The name of the score.
        scale: The score that becomes 1/2, positive; broadcast to `scores`. May be
            `None` for `"probability_drop"` and `"sarfa"`.

    Returns:
        Float32, shaped like `scores`.

    Raises:
        ValueError: If the score is unknown, or needs a scale and has none.

    Example:
        >>> from keras_jsigr.saliency.perturbation import bounded_score
        >>> bounded_score([0.0, 2.0], "squared_logits", 2.0).numpy().tolist()
        [0.0, 0.5]
    """
    check_scale(score, scale)
    scores = tf.cast(scores, tf.float32)
    if scale is None:
        return scores
    return tf.math.divide_no_nan(scores, scores + tf.cast(scale, tf.float32))


def check_scale(score: ChangeName, scale: Any) -> None:
    """Refuse an unknown score, or one that lacks the scale it needs."""
    check_change(score)
    if score == "squared_logits" and scale is None:
        raise ValueError(
            "Got no scale for the score 'squared_logits', expected a positive scalar: "
            "a typical score. Pass a running mean of the second output, or use "
            "'probability_drop'."
        )


def mean_score(scores: Any) -> tf.Tensor:
    """Average raw scores over examples and masks; zero for an empty batch."""
    scores = tf.cast(scores, tf.float32)
    count = tf.cast(tf.size(scores), tf.float32)
    return tf.math.divide_no_nan(tf.reduce_sum(scores), count)


# So many last digits logits may be off, after all the layers of a network, and
# probabilities.
_LOGITS_OFF, _PROBABILITIES_OFF = 32.0, 8.0


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
    """Score every mask of the bank on every example.

    `x_k = x (1 - m_k) + A(x) m_k` and `S_k = score(f(x), f(x_k))`: K + 1 forward passes
    in a loop that keeps nothing for a gradient.

    Args:
        logits_fn: Maps inputs to logits `(B, C)` in inference mode.
        x: Data `(B, *S)` of the bank's input shape.
        targets: Float `(B, C)`, a function that makes them from the logits (it saves
            a forward pass), or `None` for a score that needs no class.
        bank: The K masks.
        baseline: `"blur"`, `"mean"` or `"zero"`, see `baseline`.
        score: `"squared_logits"`, `"probability_drop"` or `"sarfa"`.
        kind: `"softmax"` (exclusive classes) or `"sigmoid"` (independent ones).

    Returns:
        Float32 `(B, K)`, non-negative, without gradient; zero for an example whose
        scores are all within the rounding errors of float32.

    Raises:
        ValueError: If a name is unknown or `x` does not fit the bank.

    Reference:
        arXiv 1711.00138, equations 1 and 2.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.saliency.masks import make_mask_bank
        >>> from keras_jsigr.saliency.perturbation import perturbation_coefficients
        >>> perturbation_coefficients(
        ...     lambda x: x * [2.0, 0.0],
        ...     tf.ones((1, 2)),
        ...     None,
        ...     make_mask_bank((2,)),
        ...     baseline="zero",
        ... ).numpy().tolist()
        [[2.0, 0.0]]
    """
    check_baseline(baseline)
    check_change(score)
    x = as_perturbable(x, bank)
    away = compute_baseline(x, baseline, layout=bank.layout) - x
    logits = tf.stop_gradient(logits_fn(x))
    chosen = targets(logits) if callable(targets) else targets

    def score_of(mask: tf.Tensor) -> tf.Tensor:
        step = expand_map(tf.cast(mask, x.dtype)[tf.newaxis], x) * away
        return change_score(logits, logits_fn(x + step), chosen, score, kind)

    scores = map_each(score_of, tf.constant(bank.masks), (None,))
    coefficients = _above_rounding(tf.transpose(scores), logits, score)
    return tf.ensure_shape(coefficients, (x.shape[0], bank.size))


def _above_rounding(scores: tf.Tensor, logits: tf.Tensor, score: str) -> tf.Tensor:
    """Set the scores of an example to zero if all of them are rounding errors."""
    digit = float(np.finfo(np.float32).eps)
    room: Any = _PROBABILITIES_OFF * digit
    if score == "squared_logits":
        z = tf.cast(logits, tf.float32)
        size = tf.reduce_sum(z**2, axis=-1, keepdims=True)
        room = 0.5 * (_LOGITS_OFF * digit) ** 2 * size
    rounding = tf.reduce_max(scores, axis=-1, keepdims=True) <= room
    return tf.stop_gradient(tf.where(rounding, 0.0, scores))


def as_perturbable(x: Any, bank: MaskBank) -> tf.Tensor:
    """Return the data as a float tensor without gradient that fits the bank."""
    x = as_float(x)
    if tuple(x.shape[1:]) != bank.input_shape:
        raise ValueError(
            f"Got data of shape {tuple(x.shape)}, expected (B, "
            f"{', '.join(map(str, bank.input_shape))}). "
            "Make the mask bank for the shape of this data."
        )
    return tf.stop_gradient(x)


def normalize_coefficients(coefficients: Any) -> tf.Tensor:
    """Divide the coefficients of every example by their maximum.

    Args:
        coefficients: Float `(B, K)`, non-negative.

    Returns:
        Float32 `(B, K)` in [0, 1]; an all-zero row stays all-zero.

    Example:
        >>> from keras_jsigr.saliency.perturbation import normalize_coefficients
        >>> normalize_coefficients([[1.0, 4.0], [0.0, 0.0]]).numpy().tolist()
        [[0.25, 1.0], [0.0, 0.0]]
    """
    c = tf.cast(coefficients, tf.float32)
    return tf.math.divide_no_nan(c, tf.reduce_max(c, axis=-1, keepdims=True))


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
        >>> from keras_jsigr.saliency.masks import make_mask_bank
        >>> from keras_jsigr.saliency.perturbation import expected_map
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
    """Map what the decision loses where each part of the input is occluded.

    `S = sum_k hat_k S_k`, `S_k = score(f(x), f(x (1 - m_k) + A(x) m_k))`, with `S_k`
    divided by its maximum over k if `normalize`.

    Args:
        model: A Keras classifier, a hardened model or a callable, see `as_logits`.
        x: Data `(B, *S)`.
        y: Labels `(B,)` or `(B, C)`; `None` explains the model's own decision.
        grid: G for G x G masks, or `(rows, columns)`.
        baseline: What occludes: `"blur"`, `"mean"` or `"zero"`.
        score: `"squared_logits"`, `"probability_drop"` or `"sarfa"`.
        kind: `"softmax"` (exclusive classes) or `"sigmoid"` (independent ones);
            `None` asks the head and the loss of a Keras model, and takes a callable
            for the first.
        layout: What the axes mean where the rank would mislead, see `resolve_layout`.
        batch_size: Examples per compiled call.
        normalize: Whether to bring every map to [0, 1].

    Returns:
        Float32 `(B, *map_shape)`: a tensor if `x` is one, else a NumPy array.

    Raises:
        ValueError: If a setting or shape is out of range.
        TypeError: If `model` cannot be called.

    Reference:
        arXiv 1711.00138 (masks, blur, `squared_logits`), arXiv 1912.12191 (`sarfa`).

    Example:
        >>> import numpy as np
        >>> from keras_jsigr.saliency.perturbation import perturbation_map
        >>> perturbation_map(
        ...     lambda x: x * [2.0, 0.0], np.ones((1, 2)), baseline="zero"
        ... ).tolist()
        [[1.0, 0.0]]
    """
    x = as_fit_sees(x)
    bank = make_mask_bank(x.shape[1:], grid, layout=layout)
    return perturbation_explainer(
        model,
        probe_of(x),
        bank,
        baseline=baseline,
        score=score,
        kind=kind,
        batch_size=batch_size,
        normalize=normalize,
    )(x, y)


def perturbation_explainer(
    model: Any,
    probe: Any,
    bank: MaskBank,
    *,
    baseline: BaselineName = "blur",
    score: ChangeName = "squared_logits",
    kind: HeadKind | None = None,
    batch_size: int = 128,
    normalize: bool = True,
    maps: bool = True,
) -> BatchedExplainer:
    """Compile `perturbation_map` once, to call it again and again as `f(x, y=None)`.

    Args:
        model: A Keras classifier, a hardened model or a callable, see `as_logits`.
        probe: A batch of inputs, at least one.
        bank: The masks.
        baseline: What occludes: `"blur"`, `"mean"` or `"zero"`.
        score: `"squared_logits"`, `"probability_drop"` or `"sarfa"`.
        kind: `"softmax"` (exclusive classes) or `"sigmoid"` (independent ones);
            `None` asks the head and the loss of a Keras model, and takes a callable
            for the first.
        batch_size: Examples per compiled call.
        normalize: Whether to divide the coefficients by their maximum.
        maps: Whether to return maps `(B, *map_shape)` or the coefficients `(B, K)`.

    Returns:
        The reusable function; it follows the model's weights.

    Raises:
        ValueError: If a setting or shape is out of range.
        TypeError: If `model` cannot be called.

    Example:
        >>> import numpy as np
        >>> from keras_jsigr.saliency.masks import make_mask_bank
        >>> from keras_jsigr.saliency.perturbation import perturbation_explainer
        >>> x = np.ones((3, 2), "float32")
        >>> explain = perturbation_explainer(lambda x: x, x[:1], make_mask_bank((2,)))
        >>> explain(x).shape
        (3, 2)
    """
    probe = as_float(probe)
    chosen, classes, _ = decision_of(model, probe, kind)
    beside = without_padding(model, as_logits(model, probe))

    def explain(x: tf.Tensor, y: tf.Tensor | None) -> tf.Tensor:
        def targets(z: tf.Tensor) -> tf.Tensor:
            return predicted_targets(z, chosen) if y is None else class_targets(y, z)

        found = perturbation_coefficients(
            beside(x), x, targets, bank, baseline=baseline, score=score, kind=chosen
        )
        found = normalize_coefficients(found) if normalize else found
        return interpolate(bank, found) if maps else found

    ignored = ignored_labels(model) if isinstance(model, keras.Model) else []
    return BatchedExplainer(explain, batch_size, classes, ignored)


@dataclass(frozen=True, kw_only=True)
class Perturbation(SaliencyMethod):
    """Tell how much the outputs change where a blurred disc covers the input.

    The same as `perturbation_map`: one forward pass per cell of the grid, and one.

    Args:
        grid: G for G x G masks, or `(rows, columns)`.
        baseline: What occludes: `"blur"`, `"mean"` or `"zero"`.
        score: `"squared_logits"`, `"probability_drop"` or `"sarfa"`.
        normalize: Whether to bring every map to [0, 1].
        kind: `"softmax"` (exclusive classes) or `"sigmoid"` (independent ones);
            `None` asks the head and the loss of a Keras model, and takes a callable
            for the first.
        layout: What the axes mean where the rank would mislead, see `resolve_layout`.

    Raises:
        ValueError: If a setting is out of range.

    Reference:
        arXiv 1711.00138.

    Example:
        >>> import numpy as np
        >>> from keras_jsigr.saliency import explain
        >>> x = np.ones((1, 2))
        >>> explain(
        ...     lambda x: x * [2.0, 0.0], x, method="perturbation", baseline="zero"
        ... ).tolist()
        [[1.0, 0.0]]
    """

    grid: int | Sequence[int] = 5
    baseline: BaselineName = "blur"
    score: ChangeName = "squared_logits"
    normalize: bool = True

    def __post_init__(self) -> None:
        """Check the settings."""
        super().__post_init__()
        check_baseline(self.baseline)
        check_change(self.score)
        arguments.choice("normalize", self.normalize, (False, True))

    def core(self, model: Any, probe: Any) -> Core:
        """Return the traceable function of `(x, y)`; see `SaliencyMethod`."""
        bank = make_mask_bank(tuple(probe.shape[1:]), self.grid, layout=self.layout)
        return perturbation_explainer(
            model,
            probe,
            bank,
            baseline=self.baseline,
            score=self.score,
            kind=self.known_kind,
            normalize=self.normalize,
        ).core


@dataclass(frozen=True, kw_only=True)
class SARFA(Perturbation):
    """Tell where covering the input lowers the target class and little else.

    `perturbation_map` with the score `sarfa`: one forward pass per cell of the grid,
    and one. For exclusive classes.

    Args:
        grid: G for G x G masks, or `(rows, columns)`.
        baseline: What occludes: `"blur"`, `"mean"` or `"zero"`.
        normalize: Whether to bring every map to [0, 1].
        kind: `"softmax"`; `"sigmoid"` is refused for several classes.
        layout: What the axes mean where the rank would mislead, see `resolve_layout`.

    Raises:
        ValueError: If a setting is out of range.

    Reference:
        arXiv 1912.12191.

    Example:
        >>> import numpy as np
        >>> from keras_jsigr.saliency import explain
        >>> explain(
        ...     lambda x: 2.0 * x, np.eye(2), method="sarfa", baseline="zero"
        ... ).tolist()
        [[1.0, 0.0], [0.0, 1.0]]
    """

    score: ChangeName = field(default="sarfa", init=False, repr=False)


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
        >>> from keras_jsigr.saliency.masks import make_mask_bank
        >>> from keras_jsigr.saliency.perturbation import sampled_map
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
