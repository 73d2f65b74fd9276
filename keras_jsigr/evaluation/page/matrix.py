"""Transfer results as tables of sources and targets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from keras_jsigr.evaluation.comparison import mismatches
from keras_jsigr.evaluation.rate import Rate
from keras_jsigr.evaluation.records import TransferRecord

if TYPE_CHECKING:
    from keras_jsigr.evaluation.report import Report


@dataclass(frozen=True, kw_only=True)
class Matrix:
    """Hold the accuracies under one attack at one radius.

    Attributes:
        attack: Its name.
        epsilon: Radius in input units.
        sources: What the examples were made against: one row each.
        targets: What they were shown to: one column each.
        cells: Accuracy by `(source, target)`; white box where both are equal. A pair
            that was not measured is missing.
    """

    attack: str
    epsilon: float
    sources: list[str]
    targets: list[str]
    cells: dict[tuple[str, str], Rate]


def matrices(records: Sequence[TransferRecord]) -> list[Matrix]:
    """Sort transfer results into one table per attack and radius.

    Args:
        records: In any order.

    Returns:
        The tables, by the order of the attacks, then by radius; targets come first in
        the rows, so that white box is the diagonal.

    Example:
        >>> from keras_jsigr.evaluation.page.matrix import matrices
        >>> from keras_jsigr.evaluation.rate import Rate
        >>> from keras_jsigr.evaluation.records import TransferRecord
        >>> pairs = [("other", "mine", 80), ("mine", "mine", 50)]
        >>> records = [
        ...     TransferRecord(
        ...         source=s, target=t, attack="PGD", epsilon=0.1, accuracy=Rate(n, 100)
        ...     )
        ...     for s, t, n in pairs
        ... ]
        >>> matrices(records)[0].sources
        ['mine', 'other']
    """
    attacks = list(dict.fromkeys(record.attack for record in records))
    keys = {(record.attack, record.epsilon) for record in records}
    return [
        _matrix([r for r in records if (r.attack, r.epsilon) == key])
        for key in sorted(keys, key=lambda key: (attacks.index(key[0]), key[1]))
    ]


def report_matrices(reports: Sequence[Report]) -> list[tuple[int | None, list[Matrix]]]:
    """Make the tables of one page, across the reports where that is sound.

    Args:
        reports: Any number.

    Returns:
        The tables by the place of their report; by None if they are of all reports
        together: the evaluations compare, each is of another model, and sources of one
        name are the same model.

    Example:
        >>> from keras_jsigr.evaluation.page.matrix import report_matrices
        >>> report_matrices([])
        []
    """
    together = [record for report in reports for record in report.transfer]
    if not together:
        return []
    setting = [w for w in mismatches(reports) if "differ in the attacks" not in w]
    if not setting and _distinct(reports) and _same_sources(reports):
        return [(None, matrices(together))]
    return [
        (place, matrices(report.transfer))
        for place, report in enumerate(reports)
        if report.transfer
    ]


def _distinct(reports: Sequence[Report]) -> bool:
    """Say whether no result would take the place of another."""
    targets = [name for r in reports for name in {t.target for t in r.transfer}]
    keys = [
        (t.source, t.target, t.attack, t.epsilon) for r in reports for t in r.transfer
    ]
    return len(set(targets)) == len(targets) and len(set(keys)) == len(keys)


def _same_sources(reports: Sequence[Report]) -> bool:
    """Say whether all that several reports made examples against is known to be one."""
    known: dict[str, set[str]] = {}
    for report in reports:
        for source in {(t.source, t.fingerprint) for t in report.transfer}:
            known.setdefault(source[0], set()).add(source[1])
    shared = [
        name
        for name in known
        if sum(any(t.source == name for t in r.transfer) for r in reports) > 1
    ]
    return all(len(known[name]) == 1 and "" not in known[name] for name in shared)


def _matrix(records: list[TransferRecord]) -> Matrix:
    targets = list(dict.fromkeys(record.target for record in records))
    sources = list(dict.fromkeys(record.source for record in records))
    ordered = [t for t in targets if t in sources]
    return Matrix(
        attack=records[0].attack,
        epsilon=records[0].epsilon,
        sources=ordered + [s for s in sources if s not in ordered],
        targets=targets,
        cells={(r.source, r.target): r.accuracy for r in records},
    )
