"""Perturbation saliency maps of any classifier, in one call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_jsigr.core.as_float import as_float
from keras_jsigr.core.choices import BaselineName, ChangeName
from keras_jsigr.core.ignored_labels import ignored_labels
from keras_jsigr.core.logits import as_logits
from keras_jsigr.core.padding import without_padding
from keras_jsigr.core.scores import HeadKind, class_targets, predicted_targets
from keras_jsigr.saliency.batched import BatchedExplainer, as_fit_sees, probe_of
from keras_jsigr.saliency.decision import decision_of
from keras_jsigr.saliency.interpolate import interpolate
from keras_jsigr.saliency.layout import Layout
from keras_jsigr.saliency.mask_bank import MaskBank, make_mask_bank
from keras_jsigr.saliency.perturbation import (
    normalize_coefficients,
    perturbation_coefficients,
)


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
        >>> from keras_jsigr.saliency.perturbation_map import perturbation_map
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
        >>> from keras_jsigr.saliency.mask_bank import make_mask_bank
        >>> from keras_jsigr.saliency.perturbation_map import perturbation_explainer
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
