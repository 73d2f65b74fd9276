"""From one number per example to a figure of the report."""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_jsigr.evaluation.saliency_records import Better, SaliencyFigure


def figure_of(
    values: Any,
    group: str,
    metric: str,
    condition: str = "",
    *,
    better: Better = "",
    used: Any = None,
) -> SaliencyFigure:
    """Average a metric over the examples.

    The standard error is the standard deviation (of `n - 1`) over `sqrt(n)`: it covers
    the choice of the examples, not that of the seed or of the trained model.

    Args:
        values: Float `(N,)`.
        group: What the metric is about.
        metric: Its name.
        condition: Which measurement of that name.
        better: `"higher"`, `"lower"` or `""`.
        used: Bool `(N,)`, the examples that count; `None`: all.

    Returns:
        The figure.

    Example:
        >>> from keras_jsigr.evaluation.interpretability.figures import figure_of
        >>> figure = figure_of([1.0, 2.0, 3.0], "Sparsity", "Gini index")
        >>> figure.mean, round(figure.error, 3), figure.images
        (2.0, 0.577, 3)
    """
    chosen = np.asarray(values, np.float64)
    chosen = chosen if used is None else chosen[np.asarray(used)]
    n = len(chosen)
    return SaliencyFigure(
        group=group,
        metric=metric,
        condition=condition,
        better=better,
        mean=float(chosen.mean()) if n else None,
        error=float(chosen.std(ddof=1) / np.sqrt(n)) if n > 1 else None,
        images=n,
    )
