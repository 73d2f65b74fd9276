"""One Markdown document for one report or several."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from keras_jsigr.evaluation.page.compared import compared
from keras_jsigr.evaluation.page.key_figures import key_figures
from keras_jsigr.evaluation.page.labels import labels
from keras_jsigr.evaluation.page.matrix import Matrix, report_matrices
from keras_jsigr.evaluation.page.report_tables import rate, report_tables
from keras_jsigr.evaluation.page.summary import sentences
from keras_jsigr.evaluation.page.wording import number

if TYPE_CHECKING:
    from keras_jsigr.evaluation.report import Report


def markdown_page(reports: Sequence[Report]) -> str:
    """Write reports as Markdown with tables (GitHub Flavored Markdown).

    Texts of the reports are escaped: they cannot become markup.

    Args:
        reports: At least one.

    Returns:
        The document.

    Raises:
        ValueError: If there is no report.

    Example:
        >>> from keras_jsigr.evaluation.page.markdown import markdown_page
        >>> try:
        ...     markdown_page([])
        ... except ValueError as error:
        ...     print(str(error)[:15])
        Nothing to show
    """
    if not reports:
        raise ValueError("Nothing to show: got no report, expected at least one.")
    if len(reports) == 1:
        report = reports[0]
        title = report.title or "Robustness of a model"
        parts = [f"# {escape(title)}", "## Summary", _summary(report)]
        parts += [*_key_figures(reports), *_transfer(reports), *_tables(report, "##")]
    else:
        parts = ["# Comparison of models", *(escape(t) for t in compared(reports))]
        parts += [*_key_figures(reports), *_transfer(reports)]
        for name, report in zip(labels(reports), reports, strict=True):
            parts += [f"## {escape(name)}", _summary(report), *_tables(report, "###")]
    text = "\n\n".join(parts) + "\n"
    # A lone surrogate, which JSON can hold, would make the page impossible to save.
    return text.encode("utf-8", "replace").decode()


def escape(text: str) -> str:
    r"""Make a text mean itself in Markdown, on one line.

    Args:
        text: Any.

    Returns:
        The text with a backslash before what would be markup.

    Example:
        >>> from keras_jsigr.evaluation.page.markdown import escape
        >>> print(escape("# a|b <i>"), escape("1. [x](y)"))
        \# a\|b \<i\> 1\. \[x\](y)
    """
    text = re.sub(r"([\\`*_{}\[\]<>#|~$&])", r"\\\1", " ".join(text.split()))
    # At the start of a line these would begin a list or underline a heading.
    return re.sub(r"^(\d*)([-+.)=])(?=\2|\s|$)", r"\1\\\2", text)


def _summary(report: Report) -> str:
    return "\n".join(f"- {escape(text)}" for text in sentences(report))


def _key_figures(reports: Sequence[Report]) -> list[str]:
    columns = labels(reports) if len(reports) > 1 else ["Value"]
    rows = [
        [figures[0].name, *(_joined(one.value, one.note) for one in figures)]
        for figures in zip(*map(key_figures, reports), strict=True)
    ]
    return ["## Key figures", _table(["Figure", *columns], rows)]


def _transfer(reports: Sequence[Report]) -> list[str]:
    parts = []
    for place, matrices in report_matrices(reports):
        whole = place is None or len(reports) == 1
        of = "" if whole else f" of {escape(labels(reports)[place or 0])}"
        parts.append(f"## Transfer{of}")
        for matrix in matrices:
            parts += [
                f"{escape(matrix.attack)}, ε = {number(matrix.epsilon)}: accuracy of "
                "the models in the columns on examples made against those in the rows",
                _matrix(matrix),
            ]
    return parts


def _matrix(matrix: Matrix) -> str:
    rows = [
        [source, *(rate(matrix.cells.get((source, t))) for t in matrix.targets)]
        for source in matrix.sources
    ]
    return _table(["Made against", *matrix.targets], rows)


def _tables(report: Report, level: str) -> list[str]:
    return [
        part
        for table in report_tables(report)
        for part in (
            f"{level} {escape(table.heading)}",
            _table(table.header, table.rows),
        )
    ]


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    top, *rest = ([escape(cell) for cell in row] for row in (header, *rows))
    lines = (top, ["---"] * len(header), *rest)
    return "\n".join(f"| {' | '.join(row)} |" for row in lines)


def _joined(value: str, note: str) -> str:
    return f"{value} ({note})" if value and note else value or note
