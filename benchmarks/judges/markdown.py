"""Tables as the documentation shows them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def markdown_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Lay out a Markdown table.

    Args:
        headings: Of the columns.
        rows: A text per column each.

    Returns:
        The lines of the table, without a last newline.

    Raises:
        ValueError: If a row has not one text per column.
    """
    lines = [headings, ["---"] * len(headings), *rows]
    for line in lines:
        if len(line) != len(headings):
            raise ValueError(
                f"Got a row of {len(line)} columns, expected {len(headings)}: {line}."
            )
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
