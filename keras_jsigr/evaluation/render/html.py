"""A report, or several to compare, as one HTML page that needs nothing else."""

from __future__ import annotations

import base64
import binascii
import hashlib
import math
import re
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from keras_jsigr.evaluation.records import ReportData
from keras_jsigr.evaluation.render import tables
from keras_jsigr.evaluation.render.figures import DASHES, STEPS, Chart, heat_step, theme_css
from keras_jsigr.evaluation.render.text import sentences

if TYPE_CHECKING:
    import jinja2


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


def sections(reports: Sequence[ReportData]) -> list[tuple[str, str]]:
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


def rows(reports: Sequence[ReportData]) -> dict[str, list[Any]]:
    """Line up what the reports have in common."""
    return {
        "attacks": tables.line_up([tables.numbered(r.attacks, "name") for r in reports]),
        "classes": tables.line_up([tables.numbered(r.classes, "name") for r in reports]),
        "curve": sorted(
            tables.line_up([{p.epsilon: p for p in r.curve} for r in reports]),
            key=lambda row: row[0],
        ),
        "saliency": tables.saliency_rows(reports),
        "rules": tables.line_up([tables.numbered(r.findings, "rule") for r in reports]),
        "examples": [
            (place, number, example)
            for place, report in enumerate(reports)
            for number, example in enumerate(report.examples)
        ],
    }


STATUS = {"suspect": 0, "skipped": 1, "ok": 2}


def html_page(reports: Sequence[ReportData]) -> str:
    """Make a page that shows one report, or compares several."""
    if not reports:
        raise ValueError("Nothing to show: got no report, expected at least one.")
    pages = _environment()
    style = theme_css() + pages.get_template("page.css").render(places=range(6))
    script = pages.get_template("page.js").render()
    title = reports[0].title or "Robustness of a model"
    maps_alone = all(report.saliency and not report.attacks for report in reports)
    html = pages.get_template("page.html").render(
        style=style,
        script=script,
        policy=_policy(style, script),
        reports=reports,
        names=tables.labels(reports),
        several=len(reports) > 1,
        title=title if len(reports) == 1 else "Comparison of models",
        kind="Saliency report" if maps_alone else "Robustness report",
        parts=sections(reports),
        figures=[tables.key_figures(report) for report in reports],
        sentences=[sentences(report) for report in reports],
        compared=tables.compared(reports),
        matrices=tables.report_matrices(reports),
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
    except ImportError as error:
        hint = "the HTML page needs the package jinja2: pip install jinja2"
        raise ImportError(f"{error}; {hint}") from error
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("keras_jsigr.evaluation.render", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for name in ("percent", "between", "examples", "number", "radius", "duration", "plain"):
        environment.filters[name] = getattr(tables, name)
    environment.filters |= {
        "heat_step": heat_step,
        "picture": picture,
        "mean": tables.mean,
        "spread": tables.spread,
        "norm": lambda name: tables.NORMS.get(str(name), name),
        # A figure and its unit stay on one line.
        "prose": partial(re.sub, r"(?<=[\d<>]) (?=%|\d)", "\N{NO-BREAK SPACE}"),
        "by_status": lambda found: sorted(found, key=lambda f: STATUS[f.status]),
    }
    return environment


def _policy(style: str, script: str) -> str:
    def allow(text: str) -> str:
        digest = hashlib.sha256(text.encode()).digest()
        return f"'sha256-{base64.b64encode(digest).decode()}'"

    return (
        f"default-src 'none'; style-src {allow(style)}; script-src {allow(script)}; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


def _charts(reports: Sequence[ReportData]) -> list[Chart]:
    """Return the curves for a wide and for a narrow window; [] without curves."""
    lines = [
        (name, [p for p in report.curve if math.isfinite(p.epsilon)])
        for name, report in zip(tables.labels(reports), reports, strict=True)
    ]
    if not any(points for _, points in lines):
        return []
    limits = {report.threat_model.get("epsilon") for report in reports}
    marked = [x for x in limits if isinstance(x, int | float) and math.isfinite(x)]
    chances = sorted({report.chance for report in reports})
    sizes = ((1040, 380), (350, 290))
    return [Chart(lines, sorted(marked), chances, *size) for size in sizes]
