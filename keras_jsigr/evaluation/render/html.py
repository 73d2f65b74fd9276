"""Accuracy over the radius as a drawing in SVG."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import math
import os
import re
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from xml.etree.ElementTree import Element, SubElement, tostring

from keras_jsigr.core.files import write_whole
from keras_jsigr.core.palette import STEPS, heat_step, theme_css
from keras_jsigr.evaluation.records import CurvePoint
from keras_jsigr.evaluation.render import tables
from keras_jsigr.evaluation.render.tables import (
    between,
    compared,
    key_figures,
    labels,
    number,
    percent,
    report_matrices,
    saliency_rows,
)
from keras_jsigr.evaluation.render.text import sentences

if TYPE_CHECKING:
    import jinja2

    from keras_jsigr.evaluation.report import Report


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


_SIGNATURE = b"\x89PNG\r\n\x1a\n"


class Picture(NamedTuple):
    """Hold a PNG file and its size."""

    data: str
    width: int
    height: int


def picture(data: str) -> Picture | None:
    """Read the size of a PNG file in base64."""
    try:
        start = base64.b64decode(data, validate=True)[:24]
    except (binascii.Error, ValueError):
        return None
    if not start.startswith(_SIGNATURE) or len(start) < 24:
        return None
    width, height = (int.from_bytes(start[i : i + 4], "big") for i in (16, 20))
    return Picture(data, width, height)


def sections(reports: Sequence[Report]) -> list[tuple[str, str]]:
    """Name the sections that have something to show."""
    parts = {
        "summary": ("Summary", True),
        "errors": ("What went wrong", any(r.errors for r in reports)),
        "key-figures": ("Key figures", True),
        "curve": ("Accuracy by radius", any(r.curve for r in reports)),
        "attacks": ("Attacks", any(r.attacks for r in reports)),
        "diagnostics": ("Diagnostics", any(r.findings for r in reports)),
        "transfer": ("Transfer", any(r.transfer for r in reports)),
        "linearized": ("Linearized robustness", any(r.linearized for r in reports)),
        "classes": ("Classes", any(r.classes for r in reports)),
        "examples": ("Examples", any(r.examples for r in reports)),
        "saliency": ("Saliency maps", any(r.saliency for r in reports)),
        "details": ("Settings", True),
    }
    return [(name, heading) for name, (heading, shown) in parts.items() if shown]


def rows(reports: Sequence[Report]) -> dict[str, list[Any]]:
    """Line up what the reports have in common."""
    return {
        "attacks": _line_up([numbered(r.attacks, "name") for r in reports]),
        "classes": _line_up([numbered(r.classes, "name") for r in reports]),
        "curve": sorted(
            _line_up([{p.epsilon: p for p in r.curve} for r in reports]),
            key=lambda row: row[0],
        ),
        "saliency": saliency_rows(reports),
        "rules": _line_up([numbered(r.findings, "rule") for r in reports]),
        "examples": [
            (place, number, example)
            for place, report in enumerate(reports)
            for number, example in enumerate(report.examples)
        ],
    }


def numbered(records: Sequence[Any], name: str) -> dict[Any, Any]:
    """Key records by name, and by which of that name they are."""
    seen: Counter[str] = Counter()
    found = {}
    for record in records:
        key = getattr(record, name)
        found[key, seen[key]] = record
        seen[key] += 1
    return found


def _line_up(tables: Sequence[dict[Any, Any]]) -> list[tuple[Any, list[Any]]]:
    keys = dict.fromkeys(chain.from_iterable(tables))
    return [(key, [table.get(key) for table in tables]) for key in keys]


HINT = "the HTML page needs the package jinja2: pip install jinja2"


STATUS = {"suspect": 0, "skipped": 1, "ok": 2}


def html_page(reports: Sequence[Report]) -> str:
    """Make a page that shows one report, or compares several."""
    if not reports:
        raise ValueError("Nothing to show: got no report, expected at least one.")
    pages = _environment()
    style = theme_css() + pages.get_template("page.css").render(places=range(6))
    script = pages.get_template("page.js").render()
    html = pages.get_template("page.html").render(
        style=style,
        script=script,
        policy=_policy(style, script),
        reports=reports,
        names=labels(reports),
        several=len(reports) > 1,
        title=_title(reports),
        kind=_kind(reports),
        parts=sections(reports),
        figures=[key_figures(report) for report in reports],
        sentences=[sentences(report) for report in reports],
        compared=compared(reports),
        matrices=report_matrices(reports),
        charts=_charts(reports),
        dashes=DASHES,
        steps=STEPS,
        rows=rows(reports),
    )
    # A lone surrogate, which JSON can hold, would make the page impossible to save.
    return html.encode("utf-8", "replace").decode()


def _environment() -> jinja2.Environment:
    try:
        import jinja2
        import markupsafe
    except ImportError as error:
        raise ImportError(f"{error}; {HINT}") from error
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("keras_jsigr.evaluation.render", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for name in ("percent", "between", "number", "radius", "duration", "plain"):
        environment.filters[name] = getattr(tables, name)
    environment.filters |= {
        "heat_step": heat_step,
        "markup": markupsafe.Markup,
        "picture": picture,
        "mean": tables.mean,
        "spread": tables.spread,
        "norm": lambda name: tables.NORMS.get(str(name), name),
        "prose": _prose,
        "by_status": lambda found: sorted(found, key=lambda f: STATUS[f.status]),
    }
    return environment


def _prose(text: str) -> str:
    """Keep a figure and its unit on one line."""
    return re.sub(r"(?<=[\d<>]) (?=%|\d)", "\N{NO-BREAK SPACE}", text)


def _policy(style: str, script: str) -> str:
    def allow(text: str) -> str:
        digest = hashlib.sha256(text.encode()).digest()
        return f"'sha256-{base64.b64encode(digest).decode()}'"

    return (
        f"default-src 'none'; style-src {allow(style)}; script-src {allow(script)}; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


def _charts(reports: Sequence[Report]) -> list[str]:
    """Draw the curves for a wide and for a narrow window; [] without curves."""
    lines = [
        Line(name, [p for p in report.curve if math.isfinite(p.epsilon)])
        for name, report in zip(labels(reports), reports, strict=True)
    ]
    if not any(line.points for line in lines):
        return []
    limits = [report.threat_model.get("epsilon") for report in reports]
    marked = [x for x in limits if isinstance(x, int | float) and math.isfinite(x)]
    title = "Accuracy over the radius of the attack. The table below has the figures."
    chances = [report.chance for report in reports]
    return [
        line_chart(
            lines, title=title, marked=marked, chances=chances, width=w, height=h
        )
        for w, h in ((1040, 380), (350, 290))
    ]


def _kind(reports: Sequence[Report]) -> str:
    maps_alone = all(report.saliency and not report.attacks for report in reports)
    return "Saliency report" if maps_alone else "Robustness report"


def _title(reports: Sequence[Report]) -> str:
    if len(reports) > 1:
        return "Comparison of models"
    return reports[0].title or "Robustness of a model"


def _html(reports: Sequence[Report]) -> bytes:
    pass

    return html_page(reports).encode()


def _markdown(reports: Sequence[Report]) -> bytes:
    from keras_jsigr.evaluation.render.text import markdown_page

    return markdown_page(reports).encode()


def _png(reports: Sequence[Report]) -> bytes:
    from keras_jsigr.evaluation.render.figures import png_figure

    return png_figure(reports)


# Imported when asked for: a report can be kept as JSON without any page maker.
_FORMATS: dict[str, Callable[[Sequence[Report]], bytes]] = {
    ".html": _html,
    ".md": _markdown,
    ".png": _png,
}


def save_reports(
    reports: Sequence[Report],
    path: str | os.PathLike[str],
    document: Callable[[], dict[str, Any]],
) -> None:
    """Write reports in the format of the suffix of `path`, whole or not at all."""
    path = Path(path).expanduser()
    suffix = path.suffix.lower()
    if suffix == ".json":
        # Half a character, as in names of files that are no Unicode, has no bytes: what
        # Python writes for it, \udc80, is how JSON escapes it.
        data = json_text(document()).encode(errors="backslashreplace")
    elif suffix in _FORMATS:
        data = _FORMATS[suffix](reports)
    else:
        raise ValueError(
            f"No format for '{path}': got suffix {path.suffix!r}, expected one of "
            f"{['.json', *_FORMATS]}. Rename the file."
        )
    write_whole(path, data)


def json_text(document: Any) -> str:
    """Return strict JSON: an error instead of NaN and infinity."""
    return json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
