"""What to call several reports on one page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from keras_jsigr.evaluation.report import Report


def labels(reports: Sequence[Report]) -> list[str]:
    """Give every report a name of its own.

    Args:
        reports: Any number.

    Returns:
        The titles if they differ, else the models' names, else numbered titles.

    Example:
        >>> from keras_jsigr.evaluation.page.labels import labels
        >>> labels([])
        []
    """
    titles = [report.title or "Report" for report in reports]
    models = [str(report.model.get("name") or "") for report in reports]
    for names in (titles, models):
        if all(names) and len(set(names)) == len(names):
            return names
    return [f"{i}. {title}" for i, title in enumerate(titles, start=1)]
