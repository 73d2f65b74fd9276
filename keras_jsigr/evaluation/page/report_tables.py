"""A report as plain tables of text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from keras_jsigr.evaluation.page.saliency import mean, saliency_rows, spread
from keras_jsigr.evaluation.page.wording import (
    between,
    duration,
    number,
    percent,
    plain,
)
from keras_jsigr.evaluation.rate import Rate

if TYPE_CHECKING:
    from keras_jsigr.evaluation.report import Report


class TextTable(NamedTuple):
    """Hold one table; every row is as long as the header."""

    heading: str
    header: list[str]
    rows: list[list[str]]


def report_tables(report: Report) -> list[TextTable]:
    """Write everything but summary, key figures and transfer as tables.

    Args:
        report: Of one evaluation.

    Returns:
        The tables that have rows; settings last.

    Example:
        See `markdown_page`.
    """
    rates = ["Without attack", "Under attack"]
    tables = [
        TextTable("What went wrong", ["Part"], [[text] for text in report.errors]),
        _curve(report),
        _attacks(report),
        TextTable(
            "Diagnostics",
            ["Status", "Rule", "Finding", "Figures", "What to do"],
            [
                [f.status, f.title, f.says, _figures(f.figures), f.advice]
                for f in report.findings
            ],
        ),
        _linearized(report),
        TextTable(
            "Classes",
            ["Class", *rates],
            [[c.name, rate(c.clean), rate(c.robust)] for c in report.classes],
        ),
        TextTable(
            "Examples",
            ["Example", "Class", *rates, "Attack", "Distance"],
            [
                [
                    *(str(e.index), e.label, e.predicted, e.adversarial, e.attack),
                    number(e.distance),
                ]
                for e in report.examples
            ],
        ),
        _saliency(report),
        _map_findings(report),
        _settings(report),
    ]
    return [table for table in tables if table.rows]


def rate(value: Rate | None) -> str:
    """Write a share with its interval.

    Args:
        value: None if it was not measured.

    Returns:
        The text.

    Example:
        >>> from keras_jsigr.evaluation.page.report_tables import rate
        >>> rate(None)
        'not measured'
    """
    if value is None:
        return "not measured"
    return f"{percent(value.accuracy)} ({between(value)})"


def _curve(report: Report) -> TextTable:
    name = report.curve_attack.get("name")
    return TextTable(
        "Accuracy by radius" + (f" ({name})" if name else ""),
        ["ε", "Accuracy"],
        [[number(p.epsilon), rate(p.accuracy)] for p in report.curve],
    )


def _attacks(report: Report) -> TextTable:
    header = ["Attack", "Access", "Attacked", "Broken", "Accuracy after", "Time"]
    rows = [
        [
            *(a.name, a.access, number(a.attacked), number(a.broken)),
            *(rate(a.accuracy), duration(a.seconds), plain(a.config), a.error or ""),
        ]
        for a in report.attacks
    ]
    return TextTable("Attacks", [*header, "Settings", "Error"], rows)


def _linearized(report: Report) -> TextTable:
    found = report.linearized
    rows = []
    if found is not None:
        rows = [
            [f"{percent(share)} of the examples are closer than", number(value)]
            for share, value in found.quantiles
        ]
        rows.append(["median logit margin", number(found.margin)])
        rows.append(["median dual norm of its gradient", number(found.gradient)])
    norm = f" ({found.norm})" if found else ""
    return TextTable(f"Linearized robustness{norm}", ["Figure", "Value"], rows)


def _saliency(report: Report) -> TextTable:
    rows = [
        [
            *(group, row.metric, row.condition, row.better),
            *(mean(figure), spread(figure) if figure else ""),
        ]
        for group, found in saliency_rows([report])
        for row in found
        for figure in row.figures
    ]
    header = ["About", "Figure", "Of", "Better", "Mean", "95 % interval, examples"]
    return TextTable("Saliency maps", header, rows)


def _map_findings(report: Report) -> TextTable:
    record = report.saliency
    rows = [
        [f.status, f.title, f.says, _figures(f.figures), f.advice]
        for f in (record.findings if record else [])
    ]
    rows += [["error", text, "", "", ""] for text in (record.errors if record else [])]
    header = ["Status", "Rule", "Finding", "Figures", "What to do"]
    return TextTable("What the figures of the maps say", header, rows)


def _settings(report: Report) -> TextTable:
    parts: dict[str, Mapping[str, Any]] = {
        "Model": report.model,
        "Data": report.data,
        "Threat model": report.threat_model,
        "Evaluation": report.settings,
        "Saliency maps": report.saliency.settings if report.saliency else {},
        "Attack of the curve": report.curve_attack.get("config") or {},
        "Version": report.versions,
    }
    rows = [
        [part, key, plain(value)]
        for part, values in parts.items()
        for key, value in values.items()
    ]
    rows += [["Time", key, duration(value)] for key, value in report.seconds.items()]
    return TextTable("Settings", ["Kind", "Name", "Value"], rows)


def _figures(figures: dict[str, float]) -> str:
    return ", ".join(f"{key} {number(value)}" for key, value in figures.items())
