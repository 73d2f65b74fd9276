"""Colors of both themes, the chart of the HTML page in SVG, and the PNG picture."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

from keras_jsigr.evaluation.records import CurvePoint, ReportData
from keras_jsigr.evaluation.render.tables import (
    DASH,
    Matrix,
    labels,
    number,
    numbered,
    percent,
    report_matrices,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# ---- colors

Theme = Literal["light", "dark"]
# paper < surface: the page and what lies on it; soft: quiet grounds of marked text.
_BOTH = {
    "paper": ("#fafaf8", "#13181a"),
    "surface": ("#ffffff", "#1a2023"),
    "ink": ("#1b2225", "#e4e9ea"),
    "muted": ("#566267", "#9fadb2"),
    "rule": ("#d8dddd", "#323b3f"),
    "edge": ("#828d91", "#6d7a80"),
    "accent": ("#0b6570", "#67c6d0"),
    "accent-soft": ("#e4f0f1", "#17343a"),
    "alarm": ("#9c3419", "#f3a088"),
    "alarm-soft": ("#faebe6", "#3a221b"),
}
COLORS: dict[Theme, dict[str, str]] = {
    "light": {name: light for name, (light, _) in _BOTH.items()},
    "dark": {name: dark for name, (_, dark) in _BOTH.items()},
}
# One line per report; dashes and marks differ too, for those who see no colors.
LINES: dict[Theme, list[str]] = {
    "light": ["#0b6570", "#b0431e", "#6b4ba3", "#7a6200", "#2f6d2f", "#a02c6d"],
    "dark": ["#67c6d0", "#f29a72", "#b9a1ee", "#d9bf4d", "#8fce8a", "#f08fc4"],
}
DASHES = ("", "7 4", "3 3", "9 4 2 4", "4 5", "12 5")
# The ground of a cell for a share of one and of none.
HEAT: dict[Theme, tuple[str, str]] = {
    "light": ("#f4f8f8", "#0a4a53"),
    "dark": ("#1d2629", "#8fe0e8"),
}
STEPS = 11


class Cell(NamedTuple):
    """The colors of one step of the heat map."""

    ground: str
    text: str


def heat(share: float, theme: Theme) -> Cell:
    """Choose the colors of a cell of the heat map."""
    none_lost, all_lost = (_channels(color) for color in HEAT[theme])
    lost = 1 - heat_step(share) / (STEPS - 1)
    mixed = (a + lost * (b - a) for a, b in zip(none_lost, all_lost, strict=True))
    ground = "#" + "".join(f"{round(channel):02x}" for channel in mixed)
    # Black or white, whichever has the larger contrast by WCAG 2.2.
    return Cell(ground, "#000000" if _luminance(ground) > 0.179 else "#ffffff")


def heat_step(share: float) -> int:
    """Round a share to a step of the heat map."""
    return round(share * (STEPS - 1))


def theme_css() -> str:
    """Write the colors as custom properties of CSS."""
    light, dark = _properties("light"), _properties("dark")
    return (
        f":root {{ {light} }}\n"
        "@media (prefers-color-scheme: dark) {\n"
        f':root:not([data-theme="light"]) {{ {dark} }}\n}}\n'
        f':root[data-theme="dark"] {{ {dark} }}\n'
        f"@media print {{\n:root:root:root {{ {light} }}\n}}\n"
    )


def _properties(theme: Theme) -> str:
    values = dict(COLORS[theme])
    values |= {f"line-{i}": color for i, color in enumerate(LINES[theme])}
    for step in range(STEPS):
        cell = heat(step / (STEPS - 1), theme)
        values[f"heat-{step}"], values[f"heat-text-{step}"] = cell
    pairs = " ".join(f"--{name}: {color};" for name, color in values.items())
    return f"color-scheme: {theme}; {pairs}"


def _channels(color: str) -> list[int]:
    return [int(color[i : i + 2], 16) for i in (1, 3, 5)]


def _luminance(color: str) -> float:
    shares = [channel / 255 for channel in _channels(color)]
    r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in shares)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


# ---- the chart of the HTML page


@dataclass(frozen=True)
class Chart:
    """Where the curves of reports go in a drawing, which chart.html makes of them."""

    LEFT: ClassVar = 46
    RIGHT: ClassVar = 14
    TOP: ClassVar = 26

    lines: list[tuple[str, list[CurvePoint]]]
    marked: list[float]
    chances: list[float]
    width: int
    height: int

    @property
    def limit(self) -> float:
        """The largest radius."""
        radii = [p.epsilon for _, points in self.lines for p in points]
        return max([0.0, *radii, *self.marked]) or 1.0

    @property
    def bottom(self) -> int:
        """The height of accuracy 0."""
        return self.height - 44

    def x(self, epsilon: float) -> float:
        """Return the place of a radius."""
        inner = self.width - self.LEFT - self.RIGHT
        return round(self.LEFT + inner * epsilon / self.limit, 1)

    def y(self, share: float) -> float:
        """Return the height of an accuracy."""
        return round(self.bottom - (self.bottom - self.TOP) * share, 1)

    def path(self, points: Sequence[CurvePoint], end: str) -> str:
        """Return the places of an accuracy, or of an end of its interval."""
        return " ".join(f"{self.x(p.epsilon)},{self.y(getattr(p.accuracy, end))}" for p in points)

    @property
    def ticks(self) -> list[float]:
        """Round numbers from 0 to the limit."""
        rough = self.limit / (6 if self.width > 500 else 3)
        power = 10 ** math.floor(math.log10(rough))
        step = next(s * power for s in (1, 2, 2.5, 5, 10) if s * power >= rough * 0.999)
        count = int(self.limit / step * 1.001) + 1
        return [float(f"{i * step:.10g}") for i in range(count)]

    def level_labels(self) -> list[tuple[str, float]]:
        """Return what guessing gives with its height; close levels share it."""
        groups = _close(sorted(self.chances), lambda a, b: self.y(a) - self.y(b) < 18)
        return [(", ".join(dict.fromkeys(map(percent, g))), g[-1]) for g in groups]

    def radius_labels(self) -> list[tuple[str, float, str]]:
        """Return the marked radii with place and anchor; those too close share a label."""
        groups: list[list[float]] = []
        for radius in self.marked:
            group = [radius]
            while groups and self._label(group)[3] < self._label(groups[-1])[4] + 8:
                group = groups.pop() + group
            groups.append(group)
        return [self._label(group)[:3] for group in groups]

    def _label(self, radii: Sequence[float]) -> tuple[str, float, str, float, float]:
        """Return text, place and anchor of a label, and about where it begins and ends."""
        few, place = len(radii) < 4, self.x(radii[-1])
        names = (
            ", ".join(map(number, radii))
            if few
            else " to ".join(map(number, radii[:: len(radii) - 1]))
        )
        text = f"ε = {names}"
        length = 7.2 * len(text)
        if place + length / 2 > self.width:
            return text, place + 4, "end", place + 4 - length, place + 4
        if place < length / 2:
            return text, place - 4, "start", place - 4, place - 4 + length
        return text, place, "middle", place - length / 2, place + length / 2

    def free_at_left(self, share: float) -> bool:
        """Tell whether the lines leave more room at the left of a level."""

        def room(start: float, end: float) -> float:
            points = [p for _, line in self.lines for p in line]
            inside = [p.accuracy.accuracy for p in points if start <= p.epsilon <= end]
            return min((abs(share - other) for other in inside), default=1.0)

        return room(0, 0.25 * self.limit) > room(0.75 * self.limit, self.limit)


def _close(values: Sequence[float], near: Callable[..., bool]) -> list[list[float]]:
    """Group neighbours that are near each other."""
    groups: list[list[float]] = []
    for value in values:
        if groups and near(groups[-1][-1], value):
            groups[-1].append(value)
        else:
            groups.append([value])
    return groups


# ---- the PNG picture

INK, MUTED, RULE = (COLORS["light"][name] for name in ("ink", "muted", "rule"))


def drawable(text: str, length: int = 28) -> str:
    """Shorten a text and replace what the font cannot draw."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    font = get_font(findfont(FontProperties()))
    text = " ".join(text.split())
    text = "".join(c if font.get_char_index(ord(c)) else "?" for c in text)
    return text if len(text) <= length else text[: length - 1] + "…"


def draw_curves(axes: Any, reports: Sequence[ReportData]) -> None:
    """Draw the accuracy over the radius."""
    _frame(axes, "Accuracy by radius")
    handles = []
    for place, report in enumerate(reports):
        points = [p for p in report.curve if math.isfinite(p.epsilon)]
        x, rates = [p.epsilon for p in points], [p.accuracy for p in points]
        color, dashes = LINES["light"][place % 6], DASHES[place % 6].split()
        style = (0, [float(d) / 2 for d in dashes]) if dashes else "-"
        low, high = [r.low for r in rates], [r.high for r in rates]
        axes.fill_between(x, low, high, color=color, alpha=0.15, lw=0)
        y = [r.accuracy for r in rates]
        handles += axes.plot(x, y, color=color, marker="o", ms=3.5, ls=style)
        axes.axhline(report.chance, color=MUTED, lw=0.8, ls=":")
        epsilon = report.threat_model.get("epsilon")
        if isinstance(epsilon, int | float) and math.isfinite(epsilon):
            axes.axvline(epsilon, color=INK, lw=0.8)
    axes.set_xlabel("radius ε, input units (dotted: guessing)", color=MUTED)
    axes.set_ylim(0, 1.02)
    _legend(axes, handles, reports)


def draw_bars(axes: Any, reports: Sequence[ReportData]) -> None:
    """Draw the accuracy after each attack."""
    _frame(axes, "Accuracy after each attack and all before it")
    runs = [numbered(report.attacks, "name") for report in reports]
    attacks = list(dict.fromkeys(key for run in runs for key in run))
    width = 0.8 / len(reports)
    handles = []
    for place, report in enumerate(reports):
        found = {attacks.index(key): a.accuracy for key, a in runs[place].items()}
        rates = {-1: report.clean} | {at: r for at, r in found.items() if r is not None}
        x = [at + (place + 0.5) * width - 0.4 for at in rates]
        y = [rate.accuracy for rate in rates.values()]
        low = [max(0.0, rate.accuracy - rate.low) for rate in rates.values()]
        high = [max(0.0, rate.high - rate.accuracy) for rate in rates.values()]
        style: Any = {"color": LINES["light"][place % 6], "yerr": [low, high]}
        error = {"ecolor": INK, "elinewidth": 0.8}
        handles.append(axes.bar(x, y, width * 0.92, error_kw=error, **style))
    texts = ["no attack", *(drawable(name, 18) for name, _ in attacks)]
    axes.set_xlim(-1.6, max(len(attacks), 4) - 0.4)
    axes.set_xticks(range(-1, len(attacks)), texts, rotation=30, ha="right")
    _literal(axes.get_xticklabels())
    axes.set_ylim(0, 1.02)
    _legend(axes, handles, reports)


def draw_matrix(axes: Any, matrix: Matrix) -> None:
    """Draw a transfer matrix."""
    title = drawable(f"{matrix.attack}, ε = {number(matrix.epsilon)}", 34)
    axes.set_title(title, fontsize=10, color=INK, parse_math=False)
    for row, source in enumerate(matrix.sources):
        for column, target in enumerate(matrix.targets):
            rate = matrix.cells.get((source, target))
            cell = heat(rate.accuracy, "light") if rate else None
            ground, ink = cell or ("#ffffff", MUTED)
            edge, width = (INK, 1.6) if source == target else (RULE, 0.6)
            style: Any = {"facecolor": ground, "edgecolor": edge, "lw": width}
            span = [column - 0.48, column + 0.48]
            axes.fill_between(span, row - 0.48, row + 0.48, **style)
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


def _legend(axes: Any, handles: Sequence[Any], reports: Sequence[ReportData]) -> None:
    if len(reports) < 2:
        return
    # A name that begins with an underscore would be left out.
    texts = [f"\N{ZERO WIDTH SPACE}{drawable(name)}" for name in labels(reports)]
    legend = axes.legend(handles, texts, frameon=False, fontsize=9, loc="upper right")
    _literal(legend.get_texts())


def _literal(texts: Sequence[Any]) -> None:
    """Take dollar signs for what they are and not for formulas."""
    for text in texts:
        text.set_parse_math(False)


def _new_figure(width: float, height: float) -> Figure:
    """Make a figure that pyplot does not know."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            f"{error}; the picture needs the package matplotlib: pip install matplotlib"
        ) from error
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def png_figure(reports: Sequence[ReportData]) -> bytes:
    """Draw reports as a PNG file."""
    file = io.BytesIO()
    figure_of(reports).savefig(file, format="png", dpi=150)
    return file.getvalue()


def figure_of(reports: Sequence[ReportData]) -> Figure:
    """Draw the curves, the accuracy after each attack, and transfer matrices."""
    if not reports:
        raise ValueError("Nothing to show: got no report, expected at least one.")
    matrices = _chosen(reports)
    upper, lower = 4.4, max((1.3 + 0.5 * len(m.sources) for m in matrices), default=0.0)
    figure = _new_figure(11, upper + lower)
    title = "Comparison of models" if len(reports) > 1 else reports[0].title
    figure.suptitle(drawable(title, 70), color=INK, weight="bold", parse_math=False)
    heights = [upper, lower][: 1 + bool(matrices)]
    rows = figure.add_gridspec(len(heights), 1, height_ratios=heights)
    cells = rows[0].subgridspec(1, 2)
    draw_curves(figure.add_subplot(cells[0]), reports)
    draw_bars(figure.add_subplot(cells[1]), reports)
    if matrices:
        cells = rows[1].subgridspec(1, len(matrices))
        for place, matrix in enumerate(matrices):
            draw_matrix(figure.add_subplot(cells[place]), matrix)
    return figure


def _chosen(reports: Sequence[ReportData]) -> list[Matrix]:
    """Take the matrices at the radius of the threat model, if there are any."""
    found = [matrix for _, group in report_matrices(reports) for matrix in group]
    limits = [report.threat_model.get("epsilon") for report in reports]
    at_limit = [m for m in found if m.epsilon in limits]
    return (at_limit or found)[:3]


# What `plot_history` draws apart from each other, by the ends of the names.
_PANELS = ("accuracy", "loss", "penalty")


def plot_history(history: Any, title: str = "") -> Figure:
    """Draw what `fit` logged: accuracies, clean and robust, losses, and penalties.

    pyplot does not know the figure: show it as the last line of a notebook cell, or call
    `figure.savefig("history.png")`.

    Args:
        history: What `fit` returned, or its `history`: numbers per epoch by name.
        title: Written above the figure.

    Returns:
        A `matplotlib.figure.Figure` with a panel per kind that was logged.

    Raises:
        ImportError: If matplotlib is not installed.
        TypeError: If `history` is neither.
        ValueError: If nothing of it can be drawn.

    Example:
        >>> import keras_jsigr as kj
        >>> figure = kj.plot_history({"loss": [2.0, 1.0], "val_robust_accuracy": [0.3, 0.5]})
        >>> [axes.get_title(loc="left") for axes in figure.axes]
        ['accuracy', 'loss']
    """
    logs = getattr(history, "history", history)
    if not isinstance(logs, Mapping):
        raise TypeError(
            f"`history`: got {type(history).__name__}, expected what `fit` returned, or a "
            "dictionary of numbers per epoch."
        )
    panels = {
        kind: {name: values for name, values in logs.items() if name.endswith(kind)}
        for kind in _PANELS
    }
    panels = {kind: lines for kind, lines in panels.items() if lines}
    if not panels:
        raise ValueError(
            f"Nothing to draw: got the logs {sorted(logs)}, expected names that end in "
            f"{', '.join(_PANELS)}. Compile with metrics=['accuracy']."
        )
    figure = _new_figure(4.0 * len(panels), 3.6)
    figure.suptitle(drawable(title, 70), color=INK, weight="bold", parse_math=False)
    for place, (kind, lines) in enumerate(panels.items()):
        axes = figure.add_subplot(1, len(panels), place + 1)
        for name, values in lines.items():
            style = "--" if name.startswith("val_") else "-"
            axes.plot(range(1, len(values) + 1), values, style, label=name, marker=".")
        _frame(axes, kind)
        axes.set_xlabel("epoch")
        axes.locator_params(axis="x", integer=True)
        if kind == "accuracy":
            axes.set_ylim(0.0, 1.0)
        else:
            axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.legend(fontsize=8, frameon=False)
    return figure
