"""A Markdown table of the results."""

from __future__ import annotations

from typing import Any

from figures import Cells, comparison_table

from explainers.agreement import TOLERANCE
from explainers.peers import LIBRARIES, OURS


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
    return comparison_table(
        cells,
        dict.fromkeys(nets, methods),
        LIBRARIES,
        says="maps per second",
        method="method",
        figure="maps_per_second",
        text=_text,
    )


def _text(cell: dict[str, Any], method: str, library: str, notes: list[str]) -> str:
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
