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
        The models' names if they differ, else the titles, numbered if those are equal.

    Example:
        >>> from keras_jsigr.evaluation.page.labels import labels
        >>> labels([])
        []
    """
    models = [str(report.model.get("name") or "") for report in reports]
    if all(models) and len(set(models)) == len(models):
        return models
    titles = [report.title or "Report" for report in reports]
    if len(set(titles)) == len(titles):
        return titles
    return [f"{i}. {title}" for i, title in enumerate(titles, start=1)]
