"""Several reports side by side, and whether they may be compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from keras_jsigr.evaluation.report import Report
from typing import Any

_FIELDS: dict[str, Callable[[Report], Any]] = {
    "norm": lambda report: report.threat_model.get("norm"),
    "epsilon": lambda report: report.threat_model.get("epsilon"),
    "input range": lambda report: report.threat_model.get("input_range"),
    "data": lambda report: report.data.get("fingerprint"),
}


def mismatches(reports: Sequence[Report]) -> list[str]:
    """Say in words in what evaluations differ, so that figures do not compare."""
    found = []
    for name, value_of in _FIELDS.items():
        values = [value_of(report) for report in reports]
        if not _differ(values):
            continue
        listed = ", ".join(
            f"{_short(value)} ({report.title})"
            for value, report in zip(values, reports, strict=True)
        )
        found.append(f"The reports differ in {name}: {listed}.")
    suites = [_attacks(report, transfer=False) for report in reports]
    sources = [_attacks(report, transfer=True) for report in reports]
    # No model is its own surrogate, so the sources of transfer differ between models:
    # that matters only where they changed the result.
    by_transfer = any(
        attack.broken
        for report in reports
        for attack in report.attacks
        if attack.access == "transfer"
    )
    if _differ(suites) or (by_transfer and _differ(sources)):
        found.append(
            "The reports differ in the attacks or their settings: the worst cases "
            "are over different suites."
        )
    # Of reports with transfer that say; older ones do not.
    transfer = [
        [_without(config, "verbose") for config in attack.config["settings"].values()]
        for report in reports
        for attack in report.attacks
        if attack.access == "transfer" and "settings" in attack.config
    ]
    if _differ(transfer):
        found.append(
            "The reports differ in the transfer attacks or their settings: the figures "
            "under transfer are of different attacks."
        )
    maps = [
        (_without(record.settings, "batch_size"), record.images)
        for record in (report.saliency for report in reports)
        if record is not None
    ]
    if _differ(maps):
        found.append(
            "The reports differ in how their saliency maps were measured, or on which "
            "examples: the figures of the maps do not compare."
        )
    return found


def _attacks(report: Report, *, transfer: bool) -> list[Any]:
    # How much an attack prints changes nothing; settings of transfer have their own
    # sentence.
    return [
        (attack.name, _without(attack.config, "verbose", "settings"))
        for attack in report.attacks
        if (attack.access == "transfer") == transfer
    ]


def _differ(values: list[Any]) -> bool:
    return any(value != values[0] for value in values)


def _without(config: dict[str, Any], *names: str) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key not in names}


def _short(value: Any) -> str:
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 20 else text[:8]
