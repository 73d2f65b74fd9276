"""Colors of both themes, the chart of the HTML page in SVG, and the PNG picture."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple
from xml.etree.ElementTree import Element, SubElement, tostring

from keras_jsigr.evaluation.records import CurvePoint, ReportData
from keras_jsigr.evaluation.render.tables import (
    DASH,
    Matrix,
    between,
    labels,
    number,
    numbered,
    percent,
    report_matrices,
)

# ---- colors

Theme = Literal["light", "dark"]
# paper < surface: the page and what lies on it; soft: quiet grounds of marked text.
COLORS: dict[Theme, dict[str, str]] = {
    "light": {
        "paper": "#fafaf8",
        "surface": "#ffffff",
        "ink": "#1b2225",
        "muted": "#566267",
        "rule": "#d8dddd",
        "edge": "#828d91",
        "accent": "#0b6570",
        "accent-soft": "#e4f0f1",
        "alarm": "#9c3419",
        "alarm-soft": "#faebe6",
    },
    "dark": {
        "paper": "#13181a",
        "surface": "#1a2023",
        "ink": "#e4e9ea",
        "muted": "#9fadb2",
        "rule": "#323b3f",
        "edge": "#6d7a80",
        "accent": "#67c6d0",
        "accent-soft": "#17343a",
        "alarm": "#f3a088",
        "alarm-soft": "#3a221b",
    },
}


# One line per report; dashes and marks differ too, for those who see no colours.
LINES: dict[Theme, list[str]] = {
    "light": ["#0b6570", "#b0431e", "#6b4ba3", "#7a6200", "#2f6d2f", "#a02c6d"],
    "dark": ["#67c6d0", "#f29a72", "#b9a1ee", "#d9bf4d", "#8fce8a", "#f08fc4"],
}


# The ground of a cell for a share of one and of none.
HEAT: dict[Theme, tuple[str, str]] = {
    "light": ("#f4f8f8", "#0a4a53"),
    "dark": ("#1d2629", "#8fe0e8"),
}


STEPS = 11


class Cell(NamedTuple):
    """Name the colours of one step of the heat map."""

    ground: str
    text: str


def contrast(a: str, b: str) -> float:
    """Measure how well two colours can be told apart, as WCAG 2.2 defines it."""
    low, high = sorted((_luminance(a), _luminance(b)))
    return (high + 0.05) / (low + 0.05)


def heat(share: float, theme: Theme) -> Cell:
    """Choose the colours of a heat map's cell."""
    none_lost, all_lost = (_channels(color) for color in HEAT[theme])
    lost = 1 - heat_step(share) / (STEPS - 1)
    mixed = (a + lost * (b - a) for a, b in zip(none_lost, all_lost, strict=True))
    ground = "#" + "".join(f"{round(channel):02x}" for channel in mixed)
    return Cell(ground, max("#000000", "#ffffff", key=lambda c: contrast(c, ground)))


def heat_step(share: float) -> int:
    """Round a share to a step of the heat map."""
    return round(share * (STEPS - 1))


def theme_css() -> str:
    """Write the colours as custom properties of CSS."""
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


def _channels(color: str) -> tuple[int, int, int]:
    return int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16)


def _luminance(color: str) -> float:
    linear = [
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
        for c in (channel / 255 for channel in _channels(color))
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


# ---- the chart of the HTML page

DASHES = ("", "7 4", "3 3", "9 4 2 4", "4 5", "12 5")
_LEFT, _RIGHT, _TOP, _BOTTOM = 46.0, 14.0, 26.0, 44.0


class Line(NamedTuple):
    """Name the points of one line; ascending in epsilon."""

    name: str
    points: Sequence[CurvePoint]


class _Plane(NamedTuple):
    x: Callable[[float], float]
    y: Callable[[float], float]
    limit: float
    width: float
    height: float


def line_chart(
    lines: Sequence[Line],
    *,
    title: str,
    marked: Sequence[float] = (),
    chances: Sequence[float] = (),
    width: int = 760,
    height: int = 340,
) -> str:
    """Draw lines with their 95 % intervals."""
    inner_width, inner_height = width - _LEFT - _RIGHT, height - _TOP - _BOTTOM
    largest = max((p.epsilon for line in lines for p in line.points), default=0.0)
    limit = max([largest, *marked]) or 1.0
    plane = _Plane(
        lambda epsilon: _LEFT + inner_width * epsilon / limit,
        lambda share: _TOP + inner_height * (1 - share),
        limit,
        width,
        height,
    )
    size = {"viewBox": f"0 0 {width} {height}", "class": "chart", "role": "img"}
    svg = Element("svg", {**size, "aria-label": title})
    _axes(svg, plane, 6 if width > 500 else 3)
    for chance in sorted(set(chances)):
        _rule(svg, plane, (0, chance), (limit, chance), "chance")
    for epsilon in sorted(set(marked)):
        _rule(svg, plane, (epsilon, 0), (epsilon, 1), "marked")
        anchor = "end" if epsilon > 0.8 * limit else "middle"
        x = plane.x(epsilon) + (4 if anchor == "end" else 0)
        _text(svg, f"ε = {number(epsilon)}", x, _TOP - 9, anchor, "marked-label")
    for place, line in enumerate(lines):
        _band(svg, plane, line, place)
    for place, line in enumerate(lines):
        _line(svg, plane, line, place)
    for chance in sorted(set(chances)):
        left = _room(lines, chance, 0, 0.25 * limit)
        on_left = left > _room(lines, chance, 0.75 * limit, limit)
        x, anchor = (_LEFT + 6, "start") if on_left else (width - _RIGHT, "end")
        text = f"guessing {percent(chance)}"
        _text(svg, text, x, plane.y(chance) - 5, anchor, "chance-label")
    return tostring(svg, encoding="unicode")


def _axes(svg: Element, plane: _Plane, most: int) -> None:
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        _rule(svg, plane, (0, share), (plane.limit, share), "grid")
        _text(svg, f"{share:.0%}", _LEFT - 8, plane.y(share) + 4, "end", "tick")
    for epsilon in ticks(plane.limit, most):
        y = plane.height - _BOTTOM + 18
        _text(svg, number(epsilon), plane.x(epsilon), y, "middle", "tick")
    middle = plane.x(plane.limit / 2)
    label = "radius ε of the attack, in input units"
    _text(svg, label, middle, plane.height - 6, "middle", "axis")


def _band(svg: Element, plane: _Plane, line: Line, place: int) -> None:
    high = [_at(plane, p.epsilon, p.accuracy.high) for p in line.points]
    low = [_at(plane, p.epsilon, p.accuracy.low) for p in reversed(line.points)]
    points = " ".join(high + low)
    SubElement(svg, "polygon", {"class": f"band-{place % 6}", "points": points})


def _line(svg: Element, plane: _Plane, line: Line, place: int) -> None:
    group = SubElement(svg, "g", {"class": f"line-{place % 6}"})
    points = " ".join(_at(plane, p.epsilon, p.accuracy.accuracy) for p in line.points)
    dashes = {"stroke-dasharray": DASHES[place % 6]} if place % 6 else {}
    SubElement(group, "polyline", {"points": points, **dashes})
    for point in line.points:
        x, y = plane.x(point.epsilon), plane.y(point.accuracy.accuracy)
        centre = {"cx": f"{x:.1f}", "cy": f"{y:.1f}"}
        SubElement(group, "circle", {**centre, "r": "3.2"})
        # A larger ground to hit with the mouse; its title is the tooltip.
        hit = SubElement(group, "circle", {**centre, "r": "12", "class": "hit"})
        SubElement(hit, "title").text = (
            f"{line.name}, ε = {number(point.epsilon)}: "
            f"{percent(point.accuracy.accuracy)} (95 % interval "
            f"{between(point.accuracy)})"
        )


def ticks(limit: float, most: int) -> list[float]:
    """Choose round numbers from 0 to a limit."""
    rough = limit / most
    power = 10 ** math.floor(math.log10(rough))
    step = next(s * power for s in (1, 2, 2.5, 5, 10) if s * power >= rough * 0.999)
    return [float(f"{i * step:.10g}") for i in range(int(limit / step * 1.001) + 1)]


def _rule(
    svg: Element,
    plane: _Plane,
    a: tuple[float, float],
    b: tuple[float, float],
    kind: str,
) -> None:
    places = {"x1": plane.x(a[0]), "y1": plane.y(a[1])}
    places |= {"x2": plane.x(b[0]), "y2": plane.y(b[1])}
    attributes = {name: f"{value:.1f}" for name, value in places.items()}
    SubElement(svg, "line", {"class": kind, **attributes})


def _text(svg: Element, text: str, x: float, y: float, anchor: str, kind: str) -> None:
    place = {"x": f"{x:.1f}", "y": f"{y:.1f}", "text-anchor": anchor, "class": kind}
    SubElement(svg, "text", place).text = text


def _room(lines: Sequence[Line], share: float, start: float, end: float) -> float:
    """Measure how far the lines stay from a level between two radii."""
    points = [p for line in lines for p in line.points if start <= p.epsilon <= end]
    return min((abs(p.accuracy.accuracy - share) for p in points), default=1.0)


def _at(plane: _Plane, epsilon: float, share: float) -> str:
    return f"{plane.x(epsilon):.1f},{plane.y(share):.1f}"


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


def draw_bars(axes: Any, reports: Sequence[ReportData]) -> None:
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


def png_figure(reports: Sequence[ReportData]) -> bytes:
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


def _chosen(reports: Sequence[ReportData]) -> list[Matrix]:
    """Take the matrices at the radius of the threat model, if there are any."""
    found = [matrix for _, group in report_matrices(reports) for matrix in group]
    limits = [report.threat_model.get("epsilon") for report in reports]
    at_limit = [m for m in found if m.epsilon in limits]
    return (at_limit or found)[:MATRICES]
