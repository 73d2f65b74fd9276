"""Accuracy over the radius, up to where nothing is left."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_jsigr.evaluation.parts.attack_rows import attack_rows
from keras_jsigr.evaluation.rate import Rate
from keras_jsigr.evaluation.records import CurvePoint
from keras_jsigr.evaluation.task import Task

_FACTORS = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)


def default_radii(epsilon: float, widest: float) -> list[float]:
    """Choose the radii of the curve: dense around `epsilon`, then doubling.

    Args:
        epsilon: Radius of the threat model, below `widest`.
        widest: Radius of the ball that holds every input; it is the last one.

    Returns:
        Ascending radii in input units, without zero.

    Example:
        >>> from keras_jsigr.evaluation.parts.curve import default_radii
        >>> default_radii(0.25, 1.0)
        [0.0625, 0.125, 0.1875, 0.25, 0.375, 0.5, 0.75, 1.0]
    """
    factors = [*_FACTORS, *(16.0 * 2.0**k for k in range(20))]
    # To 12 digits: 0.075 reads better than 0.07500000000000001.
    radii = [epsilon if f == 1.0 else float(f"{f * epsilon:.12g}") for f in factors]
    return [radius for radius in radii if radius < widest] + [widest]


def run_curve(
    task: Task,
    attack: Any,
    radii: Sequence[float],
    *,
    stop_at: float | None,
    points: list[CurvePoint],
) -> None:
    """Attack with growing radii; who is fooled at one is fooled at all larger ones.

    Args:
        task: The evaluation.
        attack: Any that knows its radius.
        radii: Ascending, in input units.
        stop_at: Accuracy at which no radius beyond that of the task is tried; `None`:
            all are.
        points: Filled point by point, so that nothing is lost.
    """
    right = task.right.copy()
    points.append(CurvePoint(epsilon=0.0, accuracy=Rate(int(right.sum()), len(right))))
    for radius in radii:
        low = stop_at is not None and points[-1].accuracy.accuracy <= stop_at
        if low and points[-1].epsilon >= task.epsilon:
            break
        found = attack_rows(task, "curve", attack.at(radius), np.flatnonzero(right))
        if found.error is not None:
            # A point too high would look like robustness: better none.
            raise RuntimeError(f"stopped at radius {radius:g}: {found.error}")
        right[found.broken] = False
        accuracy = Rate(int(right.sum()), len(right))
        points.append(CurvePoint(epsilon=radius, accuracy=accuracy))
        task.log.say(f"  radius {radius:g}: {accuracy.accuracy:.1%} left")
