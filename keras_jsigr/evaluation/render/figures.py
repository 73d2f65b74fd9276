"""The parts of the picture, each drawn into axes of matplotlib."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from keras_jsigr.core.palette import COLORS, LINES, heat
from keras_jsigr.evaluation.render.html import DASHES, numbered
from keras_jsigr.evaluation.render.tables import (
    DASH,
    Matrix,
    labels,
    number,
    percent,
    report_matrices,
)

if TYPE_CHECKING:
    from keras_jsigr.evaluation.report import Report


INK, MUTED, RULE = (COLORS["light"][name] for name in ("ink", "muted", "rule"))


def drawable(text: str, length: int = 28) -> str:
    """Shorten a text and replace what the font cannot draw."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    font = get_font(findfont(FontProperties()))
    text = " ".join(text.split())
    text = "".join(c if font.get_char_index(ord(c)) else "?" for c in text)
    return text if len(text) <= length else text[: length - 1] + "…"


def draw_curves(axes: Any, reports: Sequence[Report]) -> None:
    """Draw the accuracy over the radius."""
    _frame(axes, "Accuracy by radius")
    names = labels(reports)
    handles = []
    for place, report in enumerate(reports):
        points = [p for p in report.curve if math.isfinite(p.epsilon)]
        x = [p.epsilon for p in points]
        color, dashes = LINES["light"][place % 6], DASHES[place % 6].split()
        style = (0, [float(d) / 2 for d in dashes]) if dashes else "-"
        low = [p.accuracy.low for p in points]
        axes.fill_between(
            x, low, [p.accuracy.high for p in points], color=color, alpha=0.15, lw=0
        )
        y = [p.accuracy.accuracy for p in points]
        handles += axes.plot(x, y, color=color, marker="o", ms=3.5, ls=style)
        axes.axhline(report.chance, color=MUTED, lw=0.8, ls=":")
        epsilon = report.threat_model.get("epsilon")
        if isinstance(epsilon, int | float) and math.isfinite(epsilon):
            axes.axvline(epsilon, color=INK, lw=0.8)
    axes.set_xlabel("radius ε, input units (dotted: guessing)", color=MUTED)
    axes.set_ylim(0, 1.02)
    if len(reports) > 1:
        _legend(axes, handles, names)


def draw_bars(axes: Any, reports: Sequence[Report]) -> None:
    """Draw the accuracy after each attack."""
    _frame(axes, "Accuracy after each attack and all before it")
    runs = [numbered(report.attacks, "name") for report in reports]
    attacks = list(dict.fromkeys(key for run in runs for key in run))
    width = 0.8 / len(reports)
    handles = []
    for place, report in enumerate(reports):
        rates = [(-1, report.clean)]
        rates += [(attacks.index(key), a.accuracy) for key, a in runs[place].items()]
        x = [at + (place + 0.5) * width - 0.4 for at, _ in rates]
        y = [rate.accuracy for _, rate in rates]
        spans = [
            [max(0.0, rate.accuracy - rate.low) for _, rate in rates],
            [max(0.0, rate.high - rate.accuracy) for _, rate in rates],
        ]
        color = LINES["light"][place % 6]
        error = {"ecolor": INK, "elinewidth": 0.8}
        handles.append(
            axes.bar(x, y, width * 0.92, color=color, yerr=spans, error_kw=error)
        )
    texts = ["no attack", *(drawable(name, 18) for name, _ in attacks)]
    axes.set_xlim(-1.6, max(len(attacks), 4) - 0.4)
    axes.set_xticks(range(-1, len(attacks)), texts, rotation=30, ha="right")
    _literal(axes.get_xticklabels())
    axes.set_ylim(0, 1.02)
    if len(reports) > 1:
        _legend(axes, handles, labels(reports))


def draw_matrix(axes: Any, matrix: Matrix) -> None:
    """Draw a transfer matrix."""
    axes.set_title(
        drawable(f"{matrix.attack}, ε = {number(matrix.epsilon)}", 34),
        fontsize=10,
        color=INK,
        parse_math=False,
    )
    for row, source in enumerate(matrix.sources):
        for column, target in enumerate(matrix.targets):
            rate = matrix.cells.get((source, target))
            cell = heat(rate.accuracy, "light") if rate else None
            ground, ink = cell or ("#ffffff", MUTED)
            home = source == target
            axes.fill_between(
                [column - 0.48, column + 0.48],
                row - 0.48,
                row + 0.48,
                facecolor=ground,
                edgecolor=INK if home else RULE,
                lw=1.6 if home else 0.6,
            )
            text = percent(rate.accuracy) if rate else DASH
            axes.text(column, row, text, ha="center", va="center", color=ink, size=9)
    axes.set_xlim(-0.5, len(matrix.targets) - 0.5)
    axes.set_ylim(len(matrix.sources) - 0.5, -0.5)
    axes.set_xticks(range(len(matrix.targets)), map(drawable, matrix.targets))
    axes.set_yticks(range(len(matrix.sources)), map(drawable, matrix.sources))
    _literal([*axes.get_xticklabels(), *axes.get_yticklabels()])
    axes.set_xlabel("accuracy of", color=MUTED)
    axes.set_ylabel("examples made against", color=MUTED)
    axes.tick_params(length=0, labelsize=9, colors=INK)
    axes.spines[:].set_visible(False)


def _frame(axes: Any, title: str) -> None:
    axes.set_title(title, fontsize=11, color=INK, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(RULE)
    axes.grid(axis="y", color=RULE, lw=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(colors=INK, labelsize=9, length=0)
    axes.yaxis.set_major_formatter(lambda share, _: f"{share:.0%}")


def _legend(axes: Any, handles: Sequence[Any], names: Sequence[str]) -> None:
    # A name that begins with an underscore would be left out.
    texts = [f"\N{ZERO WIDTH SPACE}{drawable(name)}" for name in names]
    legend = axes.legend(handles, texts, frameon=False, fontsize=9, loc="upper right")
    _literal(legend.get_texts())


def _literal(texts: Sequence[Any]) -> None:
    """Take dollar signs for what they are and not for formulas."""
    for text in texts:
        text.set_parse_math(False)


HINT = "the picture needs the package matplotlib: pip install matplotlib"


MATRICES = 3


def png_figure(reports: Sequence[Report]) -> bytes:
    """Draw the curves, the accuracy after each attack, and transfer matrices."""
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
