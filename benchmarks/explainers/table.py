"""A Markdown table of the results."""

from __future__ import annotations

from typing import Any

from explainers.agreement import TOLERANCE
from explainers.peers import LIBRARIES, OURS

Cells = dict[str, dict[str, Any]]


def maps_table(cells: Cells, nets: list[str], methods: list[str]) -> str:
    """Lay out the speed: a row per method, a column per library.

    Args:
        cells: By `net/method/library`.
        nets: In the order to show.
        methods: In the order to show.

    Returns:
        One table per net; notes below say what a peer could not do, and how equal the
        values are.
    """
    lines: list[str] = []
    for net in nets:
        notes: list[str] = []
        lines += [
            f"\n**{net}**: maps per second\n",
            f"| method | {' | '.join(LIBRARIES)} | ratio to the fastest peer |",
            "| --- " * (len(LIBRARIES) + 2) + "|",
        ]
        for method in methods:
            row = {name: cells.get(f"{net}/{method}/{name}") for name in LIBRARIES}
            texts = [_text(cell, method, name, notes) for name, cell in row.items()]
            lines.append(f"| {method} | {' | '.join(texts)} | {_ratio(row)} |")
        lines += ["", *(f"{i}. {note}" for i, note in enumerate(notes, 1))]
    return "\n".join(lines)


def _text(
    cell: dict[str, Any] | None, method: str, library: str, notes: list[str]
) -> str:
    if cell is None:
        return "not run"
    if "missing" in cell or "error" in cell:
        notes.append(f"{library}, {method}: {cell.get('missing') or cell['error']}")
        return f"- ({len(notes)})"
    speed = cell["maps_per_second"]
    text = f"{speed:,.0f}" if speed >= 10 else f"{speed:.2g}"
    if library == OURS:
        return text
    if "convention" in cell:
        notes.append(
            f"{library}, {method}: {cell['convention']}; correlation with ours "
            f"{cell['correlation']:.4f}"
        )
        return f"{text} ({len(notes)})"
    if cell["difference"] <= TOLERANCE:
        return f"{text}, equal"
    notes.append(f"{library}, {method}: UNEQUAL by {cell['difference']:.1e}")
    return f"{text} ({len(notes)})"


def _ratio(row: dict[str, dict[str, Any] | None]) -> str:
    speeds = {
        name: cell["maps_per_second"]
        for name, cell in row.items()
        if cell and "maps_per_second" in cell
    }
    ours = speeds.pop(OURS, None)
    if ours is None or not speeds:
        return "-"
    return f"{ours / max(speeds.values()):.1f}x"
