"""Markdown tables of the results."""

from __future__ import annotations

from typing import Any

from judges.comparison_table import Cells, comparison_table
from judges.peers import LIBRARIES


def attacks_table(cells: Cells, rows: dict[str, list[str]]) -> str:
    """Lay out speed and strength: a row per attack, a column per library.

    Args:
        cells: By `net/attack/library`.
        rows: The attacks of each net, in the order to show.

    Returns:
        One table per net; notes below say what a peer could not do.
    """
    return comparison_table(
        cells,
        rows,
        LIBRARIES,
        says="images per second, then accuracy or median distance",
        method="attack",
        figure="images_per_second",
        text=_text,
    )


def _text(cell: dict[str, Any], attack: str, library: str, notes: list[str]) -> str:
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
