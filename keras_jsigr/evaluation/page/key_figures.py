"""The few figures that a report comes down to."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from keras_jsigr.evaluation.page.transfer import strongest_transfer
from keras_jsigr.evaluation.page.wording import between, duration, number, percent

if TYPE_CHECKING:
    from keras_jsigr.evaluation.report import Report


class KeyFigure(NamedTuple):
    """Hold one figure.

    Attributes:
        name: What it is.
        value: As text; empty if it was not measured.
        note: What to know about it, possibly empty.
    """

    name: str
    value: str
    note: str


def key_figures(report: Report) -> list[KeyFigure]:
    """Choose the figures to show first.

    Args:
        report: Of one evaluation.

    Returns:
        Always the same names in the same order.

    Example:
        See `markdown_page`.
    """
    transfer = strongest_transfer(report)
    worst = transfer.accuracy if transfer else None
    middle = _median(report)
    suspect = sum(finding.status == "suspect" for finding in report.findings)
    checked = sum(finding.status != "skipped" for finding in report.findings)
    total = report.seconds.get("total")
    return [
        KeyFigure(
            "Accuracy under attack",
            percent(report.robust.accuracy) if report.attacks else "",
            f"worst case per example, 95 % interval {between(report.robust)}"
            if report.attacks
            else "no attack was run",
        ),
        KeyFigure(
            "Accuracy without attack",
            percent(report.clean.accuracy),
            f"95 % interval {between(report.clean)}",
        ),
        KeyFigure("Accuracy of guessing", percent(report.chance), ""),
        KeyFigure(
            "Accuracy under transfer",
            percent(worst.accuracy) if worst else "",
            f"at worst, 95 % interval {between(worst)}" if worst else "not measured",
        ),
        KeyFigure(
            "Linearized robustness",
            number(middle) if middle is not None else "",
            "median distance, input units" if middle is not None else "not measured",
        ),
        KeyFigure(
            "Diagnostics",
            f"{suspect} suspect" if checked else "",
            f"of {checked} checked" if checked else "not run",
        ),
        KeyFigure("Examples", number(report.clean.total), ""),
        KeyFigure("Time", duration(total) if total is not None else "", ""),
    ]


def _median(report: Report) -> float | None:
    quantiles = report.linearized.quantiles if report.linearized else []
    return next((value for share, value in quantiles if share == 0.5), None)
