"""From one number per example to a figure of the report."""

from __future__ import annotations

from collections.abc import Sequence
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
    known: Any = None,
) -> SaliencyFigure:
    """Average a metric over the examples.

    The standard error is the standard deviation (of `n - 1`) over `sqrt(n)`: it covers
    the choice of the examples, not that of the seed or of the trained model. Values
    that are NaN or infinite are counted and left out.

    Args:
        values: Float `(N,)`.
        group: What the metric is about.
        metric: Its name.
        condition: Which measurement of that name.
        better: `"higher"`, `"lower"` or `""`.
        used: Bool `(N,)`, the examples that count; `None`: all.
        known: Bool `(N,)`, those whose value means something, such as those with a
            finite map; `None`: all.

    Returns:
        The figure.

    Example:
        >>> from keras_jsigr.evaluation.interpretability.figures import figure_of
        >>> figure = figure_of([1.0, 2.0, 3.0], "Sparsity", "Gini index")
        >>> figure.mean, round(figure.error, 3), figure.images
        (2.0, 0.577, 3)
    """
    values = np.asarray(values, np.float64)
    used = np.ones(len(values), bool) if used is None else np.asarray(used)
    finite = np.isfinite(values) if known is None else np.isfinite(values) & known
    chosen = values[used & finite]
    n = len(chosen)
    return SaliencyFigure(
        group=group,
        metric=metric,
        condition=condition,
        better=better,
        mean=float(chosen.mean()) if n else None,
        error=float(chosen.std(ddof=1) / np.sqrt(n)) if n > 1 else None,
        images=n,
        unknown=int((used & ~finite).sum()),
    )


def unknown_values(figures: Sequence[SaliencyFigure]) -> list[str]:
    """Say which figures lack the values of some examples.

    Args:
        figures: Of one model.

    Returns:
        One sentence, or none if there is nothing to say.

    Example:
        >>> from keras_jsigr.evaluation.interpretability.figures import (
        ...     figure_of,
        ...     unknown_values,
        ... )
        >>> figure = figure_of([1.0, float("nan")], "Sparsity", "Gini index")
        >>> figure.mean, unknown_values([figure])[0][:40]
        (1.0, 'Values or maps that are NaN or infinite ')
    """
    parts = [
        f"{' '.join([f.metric, *([f'({f.condition})'] if f.condition else [])])} "
        f"{f.unknown} of {f.images + f.unknown}"
        for f in figures
        if f.unknown
    ]
    if not parts:
        return []
    return [
        f"Values or maps that are NaN or infinite do not count: {'; '.join(parts)}."
    ]
