"""Examples made against other models, tried on the one under evaluation."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_jsigr.attacks.transfer.ensemble import LogitsEnsemble
from keras_jsigr.evaluation.log import in_words
from keras_jsigr.evaluation.parts.attack_rows import describe, outside_words
from keras_jsigr.evaluation.parts.by_name import by_name, free_name
from keras_jsigr.evaluation.parts.suite import SuiteResult
from keras_jsigr.evaluation.rate import Rate
from keras_jsigr.evaluation.records import AttackRecord, TransferRecord
from keras_jsigr.evaluation.task import Task
from keras_jsigr.evaluation.transfer_cell import Cell, TransferBench, records_of


@dataclass
class TransferResult:
    """What transferred examples did to the model.

    Attributes:
        records: One per source, attack and radius; the white-box rows first, and at
            the end those of the per-example worst of all surrogates.
        cells: Those of the surrogates, in the same order.
        attacks: The settings of the attacks by the names they have in both.
    """

    records: list[TransferRecord] = field(default_factory=list)
    cells: list[Cell] = field(default_factory=list)
    attacks: dict[str, dict[str, Any]] = field(default_factory=dict)

    def fooled_within(self, epsilon: float, examples: int) -> npt.NDArray[np.bool_]:
        """Tell which examples some surrogate's example fooled the model on.

        Args:
            epsilon: The largest radius that counts.
            examples: Their number N.

        Returns:
            Bool `(N,)`.
        """
        fooled = np.zeros(examples, bool)
        for cell in self.cells:
            if cell.epsilon <= epsilon:
                fooled |= ~next(iter(cell.right.values()))
        return fooled


def run_transfer(
    task: Task,
    name: str,
    surrogates: Mapping[str, Any],
    attacks: Sequence[Any],
    radii: Sequence[float],
    result: TransferResult,
) -> None:
    """Attack every surrogate and their ensemble, and the model itself to compare.

    A crash loses the cells of one source and attack; the others go on.

    Args:
        task: The evaluation.
        name: What the evaluated model is called in the records.
        surrogates: Models by name.
        attacks: Attacks that know their radius.
        radii: In input units.
        result: Filled source by source, so that nothing is lost.
    """
    name = _free(name, surrogates, f"{name} (evaluated)")
    sources = {name: task.model, **surrogates}
    if len(surrogates) > 1:
        label = _free("ensemble", sources, "ensemble of all")
        sources[label] = LogitsEnsemble(list(surrogates.values()))
    bench = TransferBench(sources, task.x, task.y, "true", task.batch_size, task.store)
    everyone = np.ones(len(task.x), bool)
    named = by_name(attacks)
    result.attacks = {label: describe(each)["config"] for label, each in named.items()}
    for source in sources:
        for label, attack in named.items():
            try:
                for radius in radii:
                    cell = bench.cell(source, attack.at(radius), [name])
                    cell = cell._replace(attack=label)
                    result.records += records_of(cell, everyone)
                    if source != name:
                        result.cells.append(cell)
                    if cell.outside:
                        task.log.errors.append(
                            f"transfer: {label} on {source} at {radius:g}: "
                            f"{outside_words(cell.outside)}"
                        )
                    task.log.say(
                        f"  {label} on {source} at {radius:g}: "
                        f"{result.records[-1].accuracy.accuracy:.1%} left"
                    )
            except Exception as error:
                task.log.errors.append(
                    f"transfer: {label} on {source}: {in_words(error)}"
                )
    if len(surrogates) > 1:
        result.records += _worst(result.cells, name, sources)


def transfer_record(
    task: Task, result: TransferResult, suite: SuiteResult
) -> AttackRecord | None:
    """Count transferred examples among the attacks: whatever fools the model counts.

    Args:
        task: The evaluation.
        result: Of the transfer.
        suite: Of the suite; what transfer broke is taken off `robust`.

    Returns:
        What transfer at the radius of the task added; `None` if nothing was tried.
    """
    cells = [cell for cell in result.cells if cell.epsilon <= task.epsilon]
    if not cells:
        return None
    outside = sum(cell.outside for cell in cells)
    left = int(suite.robust.sum())
    suite.robust &= ~result.fooled_within(task.epsilon, len(task.x))
    accuracy = Rate(int(suite.robust.sum()), len(task.x))
    return AttackRecord(
        name="Transfer",
        access="transfer",
        config={
            "sources": list(dict.fromkeys(cell.source for cell in cells)),
            "attacks": list(dict.fromkeys(cell.attack for cell in cells)),
            "settings": result.attacks,
        },
        attacked=left,
        broken=left - accuracy.correct,
        accuracy=accuracy,
        seconds=sum(cell.seconds for cell in cells),
        error=outside_words(outside) if outside else None,
    )


def _worst(
    cells: Sequence[Cell], name: str, taken: Mapping[str, Any]
) -> list[TransferRecord]:
    label = _free("any surrogate", taken, "any of the surrogates")
    groups: dict[tuple[str, float], list[Cell]] = {}
    for cell in cells:
        groups.setdefault((cell.attack, cell.epsilon), []).append(cell)
    rights = {
        key: np.all([cell.right[name] for cell in group], axis=0)
        for key, group in groups.items()
    }
    return [
        TransferRecord(
            source=label,
            target=name,
            attack=attack,
            epsilon=epsilon,
            accuracy=Rate(int(right.sum()), len(right)),
            union=True,
            fingerprint=_joint(groups[attack, epsilon]),
        )
        for (attack, epsilon), right in rights.items()
    ]


def _joint(cells: Sequence[Cell]) -> str:
    parts = sorted(cell.fingerprint for cell in cells)
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:16]


def _free(name: str, taken: Mapping[str, Any], otherwise: str) -> str:
    return name if name not in taken else free_name(otherwise, taken)
