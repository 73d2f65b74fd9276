"""What all parts of an evaluation share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_jsigr.evaluation.log import Log
from keras_jsigr.evaluation.store import Store


@dataclass(frozen=True, kw_only=True)
class Task:
    """Hold a checked call of `evaluate`.

    Attributes:
        model: The model under evaluation.
        x: Float `(N, *S)`, within `input_range`.
        y: Integers `(N,)`.
        logits: Float32 `(N, C)` of the model at `x`, finite.
        right: Bool `(N,)`: rightly classified without attack.
        class_names: One per class.
        epsilon: Radius in input units.
        norm: Of the perturbation.
        input_range: `(low, high)` of valid inputs.
        batch_size: Examples per call of the model.
        seed: Of everything random.
        store: Where finished pieces are kept.
        log: Where times and crashes are noted.
    """

    model: Any
    x: npt.NDArray[Any]
    y: npt.NDArray[np.int64]
    logits: npt.NDArray[np.float32]
    right: npt.NDArray[np.bool_]
    class_names: tuple[str, ...]
    epsilon: float
    norm: str
    input_range: tuple[float, float]
    batch_size: int
    seed: int
    store: Store
    log: Log


def widest_radius(norm: str, input_range: tuple[float, float], size: int) -> float:
    """Return the radius of the ball around any input that holds all others.

    Args:
        norm: `"linf"`, `"l2"` or `"l1"`.
        input_range: `(low, high)`.
        size: Number of values of an example.

    Returns:
        The radius in input units.

    Example:
        >>> from keras_jsigr.evaluation.task import widest_radius
        >>> widest_radius("l2", (0.0, 1.0), 784)
        28.0
    """
    width = input_range[1] - input_range[0]
    factors: dict[str, float] = {"linf": 1.0, "l2": size**0.5, "l1": float(size)}
    return width * factors[norm]
