"""SARFA as a saliency method."""

from __future__ import annotations

from dataclasses import dataclass, field

from keras_jsigr.core.choices import ChangeName
from keras_jsigr.saliency.methods.perturbation import Perturbation


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
