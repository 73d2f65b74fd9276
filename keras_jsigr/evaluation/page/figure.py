"""One picture for one report or several: curve, attacks and transfer."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from keras_jsigr.evaluation.page.matrix import Matrix, report_matrices
from keras_jsigr.evaluation.page.panels import (
    INK,
    draw_bars,
    draw_curves,
    draw_matrix,
    drawable,
)

if TYPE_CHECKING:
    from keras_jsigr.evaluation.report import Report

HINT = "the picture needs the package matplotlib: pip install matplotlib"
MATRICES = 3


def png_figure(reports: Sequence[Report]) -> bytes:
    """Draw the curves, the accuracy after each attack, and transfer matrices.

    Args:
        reports: At least one.

    Returns:
        A PNG file. Matplotlib's global state (backend, open figures) is left alone.

    Raises:
        ImportError: If matplotlib is not installed.
        ValueError: If there is no report.

    Example:
        >>> from keras_jsigr.evaluation.page.figure import png_figure
        >>> try:
        ...     png_figure([])
        ... except ValueError as error:
        ...     print(str(error)[:15])
        Nothing to show
    """
    if not reports:
        raise ValueError("Nothing to show: got no report, expected at least one.")
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(f"{error}; {HINT}") from error
    matrices = _chosen(reports)
    upper, lower = 4.4, max((1.3 + 0.5 * len(m.sources) for m in matrices), default=0.0)
    figure = Figure(figsize=(11, upper + lower), layout="constrained")
    FigureCanvasAgg(figure)
    title = "Comparison of models" if len(reports) > 1 else reports[0].title
    figure.suptitle(drawable(title, 70), color=INK, weight="bold", parse_math=False)
    heights = [upper, lower] if matrices else [upper]
    rows = figure.add_gridspec(len(heights), 1, height_ratios=heights)
    cells = rows[0].subgridspec(1, 2)
    draw_curves(figure.add_subplot(cells[0]), reports)
    draw_bars(figure.add_subplot(cells[1]), reports)
    if matrices:
        cells = rows[1].subgridspec(1, len(matrices))
        for place, matrix in enumerate(matrices):
            draw_matrix(figure.add_subplot(cells[place]), matrix)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=150)
    return file.getvalue()


def _chosen(reports: Sequence[Report]) -> list[Matrix]:
    """Take the matrices at the radius of the threat model, if there are any."""
    found = [matrix for _, group in report_matrices(reports) for matrix in group]
    limits = [report.threat_model.get("epsilon") for report in reports]
    at_limit = [m for m in found if m.epsilon in limits]
    return (at_limit or found)[:MATRICES]
