"""What an attack may spend: the same for every library."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

# A prepared attack: `run(x, y) -> x_adv`, NumPy arrays, inputs in 0..1.
Run = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Budget:
    """The settings of one attack, as far as it has them.

    Attributes:
        epsilon: The radius, in input units; unused by the minimum-norm ones.
        norm: `"linf"`, `"l2"` or, for AutoAttack, `"l1"`.
        steps: Gradient steps or queries.
        step_size: In input units.
        random_start: Whether to begin at a random point of the ball.
        restarts: Number of starts.
        overshoot: Of DeepFool.
        searches: Binary search steps of Carlini-Wagner.
        rate: Learning rate of Carlini-Wagner.
        constant: The first weight of Carlini-Wagner's loss.
        batch_size: Images at once.
        seed: Of everything random.
    """

    epsilon: float = 0.1
    norm: str = "linf"
    steps: int = 1
    step_size: float | None = None
    random_start: bool = False
    restarts: int = 1
    overshoot: float = 0.02
    searches: int = 5
    rate: float = 0.01
    constant: float = 1.0
    batch_size: int = 128
    seed: int = 0


Make = Callable[[Any, Budget], Run]


def in_batches(run: Run, batch_size: int) -> Run:
    """Call a function that takes everything at once batch by batch.

    Args:
        run: The prepared attack.
        batch_size: Images per call.

    Returns:
        The same for any number of images.
    """

    def batched(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        starts = range(0, len(x), batch_size)
        parts = [run(x[i : i + batch_size], y[i : i + batch_size]) for i in starts]
        return np.concatenate(parts)

    return batched
