"""The settings of a measurement of maps, checked before any work."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from keras_jsigr.core import settings
from keras_jsigr.core.choices import BASELINES, BaselineName
from keras_jsigr.evaluation.checks import check_epsilon
from keras_jsigr.evaluation.parts.about import model_name
from keras_jsigr.saliency.methods.method import SaliencyMethod

Floats = npt.NDArray[np.float32]
PartName = Literal[
    "faithfulness",
    "agreement",
    "sparsity",
    "alignment",
    "localisation",
    "smoothness",
    "uniform_noise",
    "gaussian_noise",
    "pgd",
    "saliency_attack",
    "sanity",
]
PARTS: tuple[str, ...] = get_args(PartName)


@dataclass(frozen=True, kw_only=True)
class MapTask:
    """Hold the checked settings of a measurement.

    Attributes:
        method: How maps are made, as `keras_jsigr.saliency.explain` takes it.
        epsilon: Radius of the perturbations, in input units.
        norm: Of the perturbations.
        input_range: `(low, high)` of valid inputs.
        teacher: An independent model, or `None`.
        boxes: Float `(N, 4)` of the objects, or `None`.
        baselines: What removed pixels become.
        steps: Of deletion and insertion.
        parts: What is measured, in the order of `PARTS`.
        top: Share of the pixels that count as the top of a map.
        samples: Points of the local Lipschitz constant.
        attack_steps: Of both attacks.
        batch_size: Examples worked on at once.
        seed: Of everything random.
    """

    method: str | SaliencyMethod
    epsilon: float
    norm: str
    input_range: tuple[float, float]
    teacher: Any
    boxes: Floats | None
    baselines: tuple[BaselineName, ...]
    steps: int
    parts: tuple[PartName, ...]
    top: float
    samples: int
    attack_steps: int
    batch_size: int
    seed: int

    @property
    def method_name(self) -> str:
        """What the method is called."""
        given = isinstance(self.method, str)
        return str(self.method) if given else type(self.method).__name__

    def get_config(self) -> dict[str, Any]:
        """Return the settings as plain values.

        Of method and teacher it is the name, of the boxes whether there are any.
        """
        plain = {
            "method": self.method_name,
            "teacher": None if self.teacher is None else model_name(self.teacher),
            "boxes": self.boxes is not None,
        }
        return {name: plain.get(name, value) for name, value in vars(self).items()}


def check_map_task(
    x: npt.NDArray[Any],
    *,
    epsilon: float,
    norm: str,
    input_range: tuple[float, float],
    batch_size: int,
    seed: int,
    method: str | SaliencyMethod = "gradient",
    teacher: Any = None,
    boxes: Any = None,
    baselines: Sequence[str] = BASELINES,
    steps: int = 28,
    parts: Sequence[str] | None = None,
    top: float = 0.1,
    samples: int = 8,
    attack_steps: int = 20,
) -> MapTask:
    """Check the settings of `evaluate_saliency` that no model is needed for.

    Args: those of `evaluate_saliency`; `x` is an array and `input_range` is checked.

    Returns:
        The settings.

    Raises:
        TypeError: If one has the wrong type.
        ValueError: If one is out of range.

    Example:
        See `evaluate_saliency`.
    """
    parts = PARTS if parts is None else parts
    for name, options, chosen in (
        ("baselines", BASELINES, baselines),
        ("parts", PARTS, parts),
    ):
        for one in [chosen] if isinstance(chosen, str) else chosen:
            settings.choice(name, one, options)
    return MapTask(
        method=method,
        epsilon=check_epsilon(epsilon, norm, input_range, math.prod(x.shape[1:])),
        norm=norm,
        input_range=input_range,
        teacher=teacher,
        boxes=None if boxes is None else _checked_boxes(boxes, x),
        baselines=tuple(kind for kind in get_args(BaselineName) if kind in baselines),
        steps=settings.count("steps", steps),
        parts=tuple(part for part in get_args(PartName) if part in parts),
        top=settings.share("top", top, ends="()"),
        samples=settings.count("samples", samples),
        attack_steps=settings.count("attack_steps", attack_steps),
        batch_size=settings.count("batch_size", batch_size),
        seed=settings.count("seed", seed, minimum=0),
    )


def _checked_boxes(boxes: Any, x: npt.NDArray[Any]) -> Floats:
    found = np.asarray(boxes, np.float32)
    if x.ndim != 4 or found.shape != (len(x), 4):
        raise ValueError(
            f"`boxes` does not fit: got shape {found.shape} for data of shape "
            f"{x.shape}, expected ({len(x)}, 4) for images (N, H, W, C). Pass one box "
            "[x0, y0, x1, y1] in pixels per image."
        )
    height, width = x.shape[1:3]
    x0, y0, x1, y1 = found.T
    wrong = ~((x0 >= 0) & (x0 < x1) & (x1 <= width))
    wrong |= ~((y0 >= 0) & (y0 < y1) & (y1 <= height))
    if wrong.any():
        first = int(np.flatnonzero(wrong)[0])
        raise ValueError(
            f"`boxes` is out of range: got {found[first].tolist()} at place {first}, "
            f"expected 0 <= x0 < x1 <= {width} and 0 <= y0 < y1 <= {height}. Columns "
            "come first, in pixels."
        )
    return found
