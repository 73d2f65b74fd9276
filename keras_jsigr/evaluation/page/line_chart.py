"""Accuracy over the radius as a drawing in SVG."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple
from xml.etree.ElementTree import Element, SubElement, tostring

from keras_jsigr.evaluation.page.wording import between, number, percent
from keras_jsigr.evaluation.records import CurvePoint

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
    """Draw lines with their 95 % intervals.

    The colours come from the page's style rules (`line-0`, `band-0` and so on), so
    that one drawing serves both themes.

    Args:
        lines: At least one point in all.
        title: Read aloud instead of the drawing.
        marked: Radii to mark, such as that of the threat model.
        chances: Accuracies of guessing, 0..1, drawn as level lines.
        width: In CSS pixels.
        height: In CSS pixels.

    Returns:
        An `<svg>` element, every text escaped.

    Example:
        >>> from keras_jsigr.evaluation.page.line_chart import Line, line_chart
        >>> from keras_jsigr.evaluation.rate import Rate
        >>> from keras_jsigr.evaluation.records import CurvePoint
        >>> points = [CurvePoint(epsilon=0.1, accuracy=Rate(3, 4))]
        >>> line_chart([Line("<b>", points)], title="a")[:4]
        '<svg'
    """
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
    """Choose round numbers from 0 to a limit.

    Args:
        limit: Above 0.
        most: About how many steps, at most.

    Returns:
        The numbers, ascending.

    Example:
        >>> from keras_jsigr.evaluation.page.line_chart import ticks
        >>> ticks(0.1, 5)
        [0.0, 0.02, 0.04, 0.06, 0.08, 0.1]
    """
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
