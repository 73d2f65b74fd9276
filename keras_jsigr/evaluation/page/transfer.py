"""What examples made against other models say about the figures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from keras_jsigr.evaluation.page.wording import number, percent
from keras_jsigr.evaluation.records import TransferRecord

if TYPE_CHECKING:
    from keras_jsigr.evaluation.report import Report

# What earlier versions called the worst of all sources without marking it.
_UNIONS = ("any surrogate", "any of the surrogates")


def strongest_transfer(report: Report) -> TransferRecord | None:
    """Find the examples of other models that leave the fewest right.

    Args:
        report: Of one evaluation.

    Returns:
        Of those within the radius of the threat model, if there are any; the worst of
        all sources counts as well. None if no transfer was measured.

    Example:
        See `Report.summary`.
    """
    return _strongest(report, [r for r in report.transfer if r.source != r.target])


def strongest_source(report: Report) -> TransferRecord | None:
    """Find the source, an ensemble or not, whose examples leave the fewest right.

    The worst of all sources is left out: it is as many attacks as there are sources,
    and more than one attack with access has to be no sign of anything.

    Args:
        report: Of one evaluation.

    Returns:
        As `strongest_transfer`.

    Example:
        See `Report.summary`.
    """
    foreign = [r for r in report.transfer if r.source != r.target]
    unions = {r.source for r in foreign if r.union} or _unmarked_union(foreign)
    return _strongest(report, [r for r in foreign if r.source not in unions])


def in_threat_model(report: Report, record: TransferRecord) -> bool:
    """Say whether a transfer result is about the radius of the threat model.

    Args:
        report: Of one evaluation.
        record: One of its transfer results.

    Returns:
        Whether the radii are equal.

    Example:
        See `Report.summary`.
    """
    epsilon = report.threat_model.get("epsilon")
    return isinstance(epsilon, int | float) and _same(record.epsilon, epsilon)


def transfer_words(report: Report) -> str:
    """Compare transfer with access to the model.

    Args:
        report: Of one evaluation.

    Returns:
        Some sentences.

    Example:
        See `Report.summary`.
    """
    worst = strongest_transfer(report)
    if worst is None:
        return "Transfer from other models was not measured."
    within = in_threat_model(report, worst)
    reach = "" if within else f" within {number(worst.epsilon)}"
    text = (
        f"Examples made against other models{reach} leave {percent(_share(worst))} "
        f"right at worst ({worst.attack} against {worst.source})"
    )
    single = strongest_source(report)
    home = None if single is None else _with_access(report, single)
    if single is not None and home is not None:
        if single is not worst:
            text += f"; those of the best single source {percent(_share(single))} "
            text += f"({single.attack} against {single.source})"
        text += f"; with access to the model, {single.attack} leaves "
        text += f"{percent(_share(home))}. {_difference(single, home)}"
    else:
        text += "."
    if within and report.attacks and _share(worst) < report.robust.accuracy:
        text += (
            " That is below what the attacks on the model itself found: its accuracy "
            f"under attack is at most {percent(_share(worst))}."
        )
    return text


def _strongest(
    report: Report, records: Sequence[TransferRecord]
) -> TransferRecord | None:
    at_limit = [r for r in records if in_threat_model(report, r)]
    return min(at_limit or records, key=_share, default=None)


def _unmarked_union(foreign: Sequence[TransferRecord]) -> set[str]:
    # It came last, after at least two surrogates.
    sources = list(dict.fromkeys(r.source for r in foreign))
    return {s for s in sources[-1:] if len(sources) > 2 and s in _UNIONS}


def _with_access(report: Report, foreign: TransferRecord) -> TransferRecord | None:
    found = [
        r
        for r in report.transfer
        if r.source == r.target == foreign.target
        and r.attack == foreign.attack
        and _same(r.epsilon, foreign.epsilon)
    ]
    # Older reports may have several of one name: which is the same attack, is lost.
    return found[0] if len(found) == 1 else None


def _difference(foreign: TransferRecord, home: TransferRecord) -> str:
    if foreign.accuracy.low > home.accuracy.high:
        return "Access makes the attack stronger, as it should."
    if foreign.accuracy.high < home.accuracy.low:
        return (
            "Access makes the attack weaker: the model's gradients mislead, and the "
            "accuracy under attack is overestimated."
        )
    return "The intervals overlap: access makes no clear difference."


def _share(record: TransferRecord) -> float:
    return record.accuracy.accuracy


def _same(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=1e-6)
