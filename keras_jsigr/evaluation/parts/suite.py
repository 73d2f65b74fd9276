"""The attacks of the suite in turn, each on what is left of the examples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_jsigr.evaluation.parts.attack_rows import attack_rows
from keras_jsigr.evaluation.rate import Rate
from keras_jsigr.evaluation.records import AttackRecord
from keras_jsigr.evaluation.task import Task


@dataclass
class SuiteResult:
    """What the suite left of the examples.

    Attributes:
        robust: Bool `(N,)`: right without attack and under every attack so far.
        x_adv: Float `(N, *S)`: where the model errs; the clean input elsewhere.
        fooled_by: Integers `(N,)`: the place in `records` of the attack that did it,
            -1 where none did.
        records: What each attack did.
    """

    robust: npt.NDArray[np.bool_]
    x_adv: npt.NDArray[Any]
    fooled_by: npt.NDArray[np.int64]
    records: list[AttackRecord]


def no_attack(task: Task) -> SuiteResult:
    """Return the result before the first attack.

    Args:
        task: The evaluation.

    Returns:
        Nothing fooled.
    """
    nobody = np.full(len(task.x), -1, np.int64)
    return SuiteResult(task.right.copy(), task.x.copy(), nobody, [])


def run_suite(task: Task, attacks: Sequence[Any], result: SuiteResult) -> None:
    """Attack all examples that are still right, attack by attack.

    Every attack gets what the ones before it left, so the last accuracy is that of the
    per-example worst case. A crash ends one attack; the others go on.

    Args:
        task: The evaluation.
        attacks: With the radius of the task.
        result: Updated after every attack, so that nothing is lost.
    """
    crashed = []
    for attack in attacks:
        rows = np.flatnonzero(result.robust)
        found = attack_rows(task, "suite", attack, rows)
        result.robust[found.broken] = False
        result.x_adv[found.broken] = found.x_adv
        result.fooled_by[found.broken] = len(result.records)
        accuracy = Rate(int(result.robust.sum()), len(task.x))
        result.records.append(
            AttackRecord(
                name=attack.name,
                access=attack.access,
                config=attack.get_config(),
                attacked=len(rows),
                broken=len(found.broken),
                accuracy=accuracy,
                seconds=found.seconds,
                error=found.error,
            )
        )
        task.log.say(
            f"  {attack.name}: fooled {len(found.broken)} of {len(rows)}, "
            f"{accuracy.accuracy:.1%} left, {found.seconds:.0f} s"
        )
        if found.error is not None:
            what = "did not finish" if found.crashed else "lost some of its points"
            task.log.errors.append(
                f"suite: {attack.name} {what}, so the accuracy under attack may be too "
                f"high. {found.error}"
            )
        crashed.append(found.crashed)
    if attacks and all(crashed):
        task.log.errors.append(
            "suite: no attack finished, so the accuracy under attack means nothing."
        )
