"""Several reports side by side, and whether they may be compared."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from keras_jsigr.evaluation.report import SCHEMA, Report, read_json
from keras_jsigr.evaluation.saving import save_reports

_FIELDS: dict[str, Callable[[Report], Any]] = {
    "norm": lambda report: report.threat_model.get("norm"),
    "epsilon": lambda report: report.threat_model.get("epsilon"),
    "input range": lambda report: report.threat_model.get("input_range"),
    "data": lambda report: report.data.get("fingerprint"),
}


@dataclass(frozen=True)
class Comparison:
    """Hold reports to be read side by side.

    Attributes:
        reports: At least one, in the order given.
        warnings: In what the evaluations differ, so that the figures do not compare;
            empty if threat model, data and attacks are the same.

    Raises:
        TypeError: If something else than reports is given.
        ValueError: If there is none.
    """

    reports: tuple[Report, ...]
    warnings: list[str] = field(init=False)

    def __post_init__(self) -> None:
        """Check the reports and note where they differ."""
        object.__setattr__(self, "reports", tuple(self.reports))
        if not self.reports:
            raise ValueError(
                "Nothing to compare: got no report, expected at least one. Pass "
                "compare([report, ...])."
            )
        for report in self.reports:
            if not isinstance(report, Report):
                raise TypeError(
                    f"Got a {type(report).__name__}, expected reports. Load files with "
                    "Report.load(path) first."
                )
        object.__setattr__(self, "warnings", mismatches(self.reports))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write all reports as `.json`, or one page: `.html`, `.md` or `.png`.

        Args:
            path: The suffix says the format; parent folders are made. The file appears
                whole or not at all.

        Raises:
            ValueError: If the suffix is none of these.
            ImportError: If a format needs a package that is not installed.
        """
        save_reports(self.reports, path, self.to_document)

    def to_document(self) -> dict[str, Any]:
        """Return the contents of the JSON file: `schema`, `reports`, `warnings`."""
        reports = [report.to_document() for report in self.reports]
        return {"schema": SCHEMA, "warnings": self.warnings, "reports": reports}

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read what `save` wrote as `.json`.

        Args:
            path: The file.

        Returns:
            The comparison.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If it is damaged, no comparison, or of a newer format.
        """
        document = read_json(path)
        reports = document.get("reports") if isinstance(document, dict) else None
        if not isinstance(reports, list):
            raise ValueError(
                f"'{path}' holds no comparison: expected a list `reports`. Read a "
                "single report with Report.load(path)."
            )
        return cls(tuple(Report.from_document(part, f"'{path}'") for part in reports))


def compare(reports: Sequence[Report]) -> Comparison:
    """Put reports side by side.

    Args:
        reports: At least one; reports of the same data, threat model and attacks
            compare, of others `warnings` says in what they differ.

    Returns:
        The comparison, with `save("a.html")`, `.md`, `.png` and `.json`.

    Raises:
        TypeError: If something else than reports is given.
        ValueError: If there is none.

    Example:
        >>> from keras_jsigr.evaluation.comparison import compare
        >>> try:
        ...     compare([])
        ... except ValueError as error:
        ...     print(str(error)[:19])
        Nothing to compare:
    """
    return Comparison(tuple(reports))


def mismatches(reports: Sequence[Report]) -> list[str]:
    """Say in words in what evaluations differ, so that figures do not compare.

    Args:
        reports: Any number.

    Returns:
        One sentence per difference of threat model, data, attacks, transfer attacks or
        measurement of maps.

    Example:
        >>> from keras_jsigr.evaluation.comparison import mismatches
        >>> mismatches([])
        []
    """
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
