"""A Markdown table per network: a row per method, a column per library."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from judges.markdown import markdown_table

Cells = Mapping[str, dict[str, Any]]
# The text of a measured cell, from the cell, the method, the library and the notes, to
# which it may add.
Text = Callable[[dict[str, Any], str, str, list[str]], str]


def comparison_table(
    cells: Cells,
    rows: Mapping[str, Iterable[str]],
    libraries: Iterable[str],
    *,
    says: str,
    method: str,
    figure: str,
    text: Text,
) -> str:
    """Lay out what was measured.

    Args:
        cells: By `net/method/library`; `net/clean` holds the accuracy in percent.
        rows: The methods of each net, in the order to show.
        libraries: The columns; those that begin as the first one does are ours.
        says: What a cell holds, for the headline.
        method: Heading of the first column.
        figure: Key of the speed in a cell.
        text: Writes a measured cell.

    Returns:
        One table per net; notes below say what a library could not do.
    """
    names = list(libraries)
    lines: list[str] = []
    for net, methods in rows.items():
        notes: list[str] = []
        clean = cells.get(f"{net}/clean")
        known = f", {clean['accuracy']:.1f} % clean" if clean else ""
        table = []
        for row in methods:
            found = {name: cells.get(f"{net}/{row}/{name}") for name in names}
            texts = [
                _text(cell, row, name, notes, text) for name, cell in found.items()
            ]
            table.append([row, *texts, _ratio(found, names[0], figure)])
        headings = [method, *names, "ratio to the fastest peer"]
        lines += [
            f"\n**{net}**{known}: {says}\n",
            markdown_table(headings, table),
        ]
        lines += ["", *(f"{i}. {note}" for i, note in enumerate(notes, 1))]
    return "\n".join(lines)


def _text(
    cell: dict[str, Any] | None, method: str, library: str, notes: list[str], text: Text
) -> str:
    if cell is None:
        return "not run"
    if "missing" in cell or "error" in cell:
        notes.append(f"{library}, {method}: {cell.get('missing') or cell['error']}")
        return f"- ({len(notes)})"
    return text(cell, method, library, notes)


def _ratio(row: Mapping[str, dict[str, Any] | None], ours: str, figure: str) -> str:
    speeds = {
        name: cell[figure] for name, cell in row.items() if cell and figure in cell
    }
    own = [speeds.pop(name) for name in list(speeds) if name.startswith(ours)]
    if not own or not speeds:
        return "-"
    return " / ".join(f"{speed / max(speeds.values()):.1f}x" for speed in own)
