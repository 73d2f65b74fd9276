"""Markdown tables of the results."""

from __future__ import annotations

from typing import Any

from judges.peers import LIBRARIES, OURS

Cells = dict[str, dict[str, Any]]


def attacks_table(cells: Cells, rows: dict[str, list[str]]) -> str:
    """Lay out speed and strength: a row per attack, a column per library.

    Args:
        cells: By `net/attack/library`.
        rows: The attacks of each net, in the order to show.

    Returns:
        One table per net; notes below say what a peer could not do.
    """
    lines: list[str] = []
    for net, attacks in rows.items():
        notes: list[str] = []
        lines += [
            f"\n**{net}**: images per second, then accuracy or median distance\n",
            f"| attack | {' | '.join(LIBRARIES)} | ratio to the fastest peer |",
            "| --- " * (len(LIBRARIES) + 2) + "|",
        ]
        for attack in attacks:
            row = {name: cells.get(f"{net}/{attack}/{name}") for name in LIBRARIES}
            texts = [_text(cell, attack, name, notes) for name, cell in row.items()]
            lines.append(f"| {attack} | {' | '.join(texts)} | {_ratio(row)} |")
        lines += ["", *(f"{i}. {note}" for i, note in enumerate(notes, 1))]
    return "\n".join(lines)


def _text(
    cell: dict[str, Any] | None, attack: str, library: str, notes: list[str]
) -> str:
    if cell is None:
        return "not run"
    if "missing" in cell or "error" in cell:
        notes.append(f"{library}, {attack}: {cell.get('missing') or cell['error']}")
        return f"- ({len(notes)})"
    speed = cell["images_per_second"]
    text = f"{speed:.0f}" if speed >= 10 else f"{speed:.1f}"
    text += f", {_strength(cell)}"
    if "ours" in cell:
        ours = _strength(cell["ours"])
        notes.append(f"{library}, {attack}: {cell['images']} images; ours there {ours}")
        text += f" ({len(notes)})"
    return text


def _strength(cell: dict[str, Any]) -> str:
    if "accuracy" in cell:
        return f"{cell['accuracy']:.1%}"
    middle = cell["median_distance"]
    text = "infinite" if middle is None else f"{middle:.3f}"
    return f"{text}, {cell['failed']:.1%} failed" if cell["failed"] else text


def _ratio(row: dict[str, dict[str, Any] | None]) -> str:
    speeds = {
        name: cell["images_per_second"]
        for name, cell in row.items()
        if cell and "images_per_second" in cell
    }
    ours = [speeds.pop(name) for name in list(speeds) if name.startswith(OURS)]
    if not ours or not speeds:
        return "-"
    return " / ".join(f"{speed / max(speeds.values()):.1f}x" for speed in ours)
