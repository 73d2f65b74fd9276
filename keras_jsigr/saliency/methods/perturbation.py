"""The perturbation map as a saliency method."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from keras_jsigr.core import settings
from keras_jsigr.core.choices import BaselineName, ChangeName
from keras_jsigr.saliency.baselines import check_baseline
from keras_jsigr.saliency.batched import Core
from keras_jsigr.saliency.change_score import check_change
from keras_jsigr.saliency.mask_bank import make_mask_bank
from keras_jsigr.saliency.methods.method import SaliencyMethod
from keras_jsigr.saliency.perturbation_map import perturbation_explainer


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
        settings.choice("normalize", self.normalize, (False, True))

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
