"""The figures of saliency maps as they stand on the page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from keras_jsigr.evaluation.page.wording import listing, number
from keras_jsigr.evaluation.saliency_records import SaliencyFigure

if TYPE_CHECKING:
    from keras_jsigr.evaluation.report import Report


class SaliencyRow(NamedTuple):
    """Hold one figure of all reports; `None` where a report lacks it."""

    metric: str
    condition: str
    better: str
    figures: list[SaliencyFigure | None]


def saliency_rows(reports: Sequence[Report]) -> list[tuple[str, list[SaliencyRow]]]:
    """Line up the figures that the reports have in common, group by group.

    Args:
        reports: At least one.

    Returns:
        Per group its name and its rows, in the order measured.

    Example:
        >>> from keras_jsigr.evaluation.page.saliency import saliency_rows
        >>> saliency_rows([])
        []
    """
    groups: dict[str, dict[tuple[str, str], SaliencyRow]] = {}
    for place, report in enumerate(reports):
        for figure in report.saliency.figures if report.saliency else []:
            row = groups.setdefault(figure.group, {}).setdefault(
                (figure.metric, figure.condition),
                SaliencyRow(
                    figure.metric,
                    figure.condition,
                    figure.better,
                    [None] * len(reports),
                ),
            )
            row.figures[place] = figure
    return [(group, list(rows.values())) for group, rows in groups.items()]


def mean(figure: SaliencyFigure | None) -> str:
    """Write the mean of a figure.

    Args:
        figure: None if it was not measured.

    Returns:
        The text.

    Example:
        >>> from keras_jsigr.evaluation.page.saliency import mean
        >>> mean(None)
        'not measured'
    """
    if figure is None or figure.mean is None:
        unknown = figure is not None and figure.unknown
        return "no finite value" if unknown else "not measured"
    return _decimal(figure.mean)


def spread(figure: SaliencyFigure) -> str:
    """Write the interval of a figure and the number of examples behind it.

    Args:
        figure: Any.

    Returns:
        The text.

    Example:
        >>> from keras_jsigr.evaluation.page.saliency import spread
        >>> from keras_jsigr.evaluation.saliency_records import SaliencyFigure
        >>> spread(
        ...     SaliencyFigure(
        ...         group="Sparsity",
        ...         metric="Gini index",
        ...         condition="",
        ...         better="higher",
        ...         mean=0.5,
        ...         error=0.1,
        ...         images=9,
        ...     )
        ... )
        '0.304 to 0.696, 9 examples'
    """
    examples = f"{number(figure.images)} example{'s' * (figure.images != 1)}"
    if figure.low is None or figure.high is None:
        return examples
    return f"{_decimal(figure.low)} to {_decimal(figure.high)}, {examples}"


def saliency_words(report: Report) -> str:
    """Say in a few sentences what was measured of the maps.

    Args:
        report: Of one model.

    Returns:
        The text; empty if nothing was measured.

    Example:
        See `SaliencyReport.summary`.
    """
    record = report.saliency
    if record is None:
        return ""
    suspect = [f.title for f in record.findings if f.status == "suspect"]
    says = [f.says for f in record.findings]
    text = (
        f"The {record.method} maps of {number(record.images)} examples were measured."
    )
    if suspect:
        text += f" Suspect: {listing(suspect)}."
    if record.errors:
        text += f" Not everything worked: {' '.join(record.errors)}"
    return " ".join([text, *says])


def _decimal(value: float) -> str:
    return f"{value:.3f}" if value == 0 or 5e-4 <= abs(value) < 100 else number(value)
