"""The sections of the page, and what they compare."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

from keras_jsigr.evaluation.page.saliency import saliency_rows

if TYPE_CHECKING:
    from keras_jsigr.evaluation.report import Report


def sections(reports: Sequence[Report]) -> list[tuple[str, str]]:
    """Name the sections that have something to show.

    Args:
        reports: At least one.

    Returns:
        `(identifier, heading)`, in the order of the page.

    Example:
        >>> from keras_jsigr.evaluation.page.sections import sections
        >>> [name for name, _ in sections([])]
        ['summary', 'key-figures', 'details']
    """
    parts = {
        "summary": ("Summary", True),
        "errors": ("What went wrong", any(r.errors for r in reports)),
        "key-figures": ("Key figures", True),
        "curve": ("Accuracy by radius", any(r.curve for r in reports)),
        "attacks": ("Attacks", any(r.attacks for r in reports)),
        "diagnostics": ("Diagnostics", any(r.findings for r in reports)),
        "transfer": ("Transfer", any(r.transfer for r in reports)),
        "linearized": ("Linearized robustness", any(r.linearized for r in reports)),
        "classes": ("Classes", any(r.classes for r in reports)),
        "examples": ("Examples", any(r.examples for r in reports)),
        "saliency": ("Saliency maps", any(r.saliency for r in reports)),
        "details": ("Settings", True),
    }
    return [(name, heading) for name, (heading, shown) in parts.items() if shown]


def rows(reports: Sequence[Report]) -> dict[str, list[Any]]:
    """Line up what the reports have in common.

    Args:
        reports: At least one.

    Returns:
        Per kind of table its rows: a key and one entry per report, or None where a
        report has none.

    Example:
        >>> from keras_jsigr.evaluation.page.sections import rows
        >>> rows([])["classes"]
        []
    """
    return {
        "attacks": _line_up([numbered(r.attacks, "name") for r in reports]),
        "classes": _line_up([numbered(r.classes, "name") for r in reports]),
        "curve": sorted(
            _line_up([{p.epsilon: p for p in r.curve} for r in reports]),
            key=lambda row: row[0],
        ),
        "saliency": saliency_rows(reports),
        "rules": _line_up([numbered(r.findings, "rule") for r in reports]),
        "examples": [
            (place, number, example)
            for place, report in enumerate(reports)
            for number, example in enumerate(report.examples)
        ],
    }


def numbered(records: Sequence[Any], name: str) -> dict[Any, Any]:
    """Key records by name, and by which of that name they are.

    Args:
        records: Of a report.
        name: Of their attribute.

    Returns:
        The records by pairs `(name, number)`, from 0 for the first of the name.

    Example:
        >>> from types import SimpleNamespace
        >>> from keras_jsigr.evaluation.page.sections import numbered
        >>> list(numbered([SimpleNamespace(name=name) for name in "aba"], "name"))
        [('a', 0), ('b', 0), ('a', 1)]
    """
    seen: Counter[str] = Counter()
    found = {}
    for record in records:
        key = getattr(record, name)
        found[key, seen[key]] = record
        seen[key] += 1
    return found


def _line_up(tables: Sequence[dict[Any, Any]]) -> list[tuple[Any, list[Any]]]:
    keys = dict.fromkeys(chain.from_iterable(tables))
    return [(key, [table.get(key) for table in tables]) for key in keys]
