"""What several reports say about each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from keras_jsigr.evaluation.comparison import mismatches
from keras_jsigr.evaluation.page.labels import labels
from keras_jsigr.evaluation.page.wording import percent

if TYPE_CHECKING:
    from keras_jsigr.evaluation.report import Report


def compared(reports: Sequence[Report]) -> list[str]:
    """Say which model holds best, or why that cannot be said.

    Args:
        reports: Any number.

    Returns:
        Sentences; none for fewer than two reports or without attacks.

    Example:
        >>> from keras_jsigr.evaluation.page.compared import compared
        >>> compared([])
        []
    """
    if len(reports) < 2:
        return []
    differences = mismatches(reports)
    if differences:
        return [*differences, "Their figures do not compare directly."]
    if not any(report.attacks for report in reports):
        return []
    order = sorted(
        zip(labels(reports), (report.robust for report in reports), strict=True),
        key=lambda pair: -pair[1].accuracy,
    )
    (first, best), *rest = order
    others = ", ".join(f"{name} {percent(rate.accuracy)}" for name, rate in rest)
    text = (
        f"Under attack {first} remains right most often, {percent(best.accuracy)} of "
        f"the time; {others}."
    )
    close = [name for name, rate in rest if rate.high >= best.low]
    if close:
        text += (
            f" The intervals of {first} and {', '.join(close)} overlap: which is "
            "better may be chance."
        )
    return [text]
