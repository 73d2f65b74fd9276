"""One web page for one report or several, complete in itself."""

from __future__ import annotations

import base64
import hashlib
import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from keras_jsigr.core.palette import STEPS, heat_step, theme_css
from keras_jsigr.evaluation.page import saliency, wording
from keras_jsigr.evaluation.page.compared import compared
from keras_jsigr.evaluation.page.key_figures import key_figures
from keras_jsigr.evaluation.page.labels import labels
from keras_jsigr.evaluation.page.line_chart import DASHES, Line, line_chart
from keras_jsigr.evaluation.page.matrix import report_matrices
from keras_jsigr.evaluation.page.picture import picture
from keras_jsigr.evaluation.page.sections import rows, sections
from keras_jsigr.evaluation.page.summary import sentences

if TYPE_CHECKING:
    import jinja2

    from keras_jsigr.evaluation.report import Report

HINT = "the HTML page needs the package jinja2: pip install jinja2"
STATUS = {"suspect": 0, "skipped": 1, "ok": 2}


def html_page(reports: Sequence[Report]) -> str:
    """Make a page that shows one report, or compares several.

    It holds its style, script and pictures, and its Content-Security-Policy forbids
    everything else: it asks no network and can be mailed. Texts of the reports are
    escaped.

    Args:
        reports: At least one.

    Returns:
        An HTML document.

    Raises:
        ImportError: If jinja2 is not installed.
        ValueError: If there is no report.

    Example:
        >>> from keras_jsigr.evaluation.page.html import html_page
        >>> try:
        ...     html_page([])
        ... except ValueError as error:
        ...     print(str(error)[:15])
        Nothing to show
    """
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
        loader=jinja2.PackageLoader("keras_jsigr.evaluation.page", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for name in ("percent", "between", "number", "radius", "duration", "plain"):
        environment.filters[name] = getattr(wording, name)
    environment.filters |= {
        "heat_step": heat_step,
        "markup": markupsafe.Markup,
        "picture": picture,
        "mean": saliency.mean,
        "spread": saliency.spread,
        "norm": lambda name: wording.NORMS.get(str(name), name),
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
