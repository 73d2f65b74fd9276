"""Everything that defines the objective, checked once."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from keras_jsigr.core.choices import BASELINES, CHANGES, BaselineName, ChangeName
from keras_jsigr.core.scores import SCORES, ScoreName
from keras_jsigr.penalties.jacobian import NORMS, NormName
from keras_jsigr.penalties.selection import (
    LINEAR_SELECTIONS,
    SELECTIONS,
    SelectionName,
)

EstimatorName = Literal["vjp", "jvp", "finite_difference", "exact"]
FormName = Literal["fused", "separate"]
WeightsName = Literal["fixed", "auto"]
REVERSE_MODE = ("vjp", "exact")
_OFF = " A weight of 0 switches its term off."
_SHARE = " Give a share, such as 0.02 for two points."


@dataclass(frozen=True, kw_only=True)
class PenaltySettings:
    """The settings of the J-SIGR objective.

    `harden` documents each of them; this class checks them and carries them through
    serialization.

    Raises:
        ValueError: If a value is out of range or two settings exclude each other.

    Example:
        >>> from keras_jsigr.penalties import PenaltySettings
        >>> PenaltySettings(jacobian_weight=0.03).estimator
        'vjp'
    """

    jacobian_weight: float = 0.005
    selective_weight: float = 0.015
    align_weight: float = 0.0
    penalty_weights: WeightsName = "fixed"
    accuracy_drop: float = 0.02
    reference_accuracy: float | None = None
    form: FormName = "fused"
    norm: NormName = "l1"
    estimator: EstimatorName = "vjp"
    projections: int = 1
    score: ScoreName = "log_prob"
    selection: SelectionName = "soft"
    quantile: float = 0.5
    threshold: float | None = None
    grid: int = 5
    baseline: BaselineName = "blur"
    saliency_score: ChangeName = "squared_logits"
    masks_per_step: int | None = 1
    delay_steps: int = 0
    ramp_steps: int = 0
    input_range: tuple[float, float] = (0.0, 1.0)
    inputs: tuple[str, ...] | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Check every value and every pair that excludes each other."""
        for name in ("jacobian_weight", "selective_weight", "align_weight"):
            _check_number(name, getattr(self, name), 0.0, math.inf, _OFF)
        _check_choice("penalty_weights", self.penalty_weights, get_args(WeightsName))
        _check_number("accuracy_drop", self.accuracy_drop, 0.0, 1.0, _SHARE)
        if self.reference_accuracy is not None:
            name = "reference_accuracy"
            _check_number(name, self.reference_accuracy, 0.0, 1.0, _SHARE)
        _check_choice("form", self.form, get_args(FormName))
        _check_choice("norm", self.norm, NORMS)
        _check_choice("estimator", self.estimator, get_args(EstimatorName))
        _check_choice("score", self.score, SCORES)
        _check_choice("selection", self.selection, SELECTIONS)
        _check_number("quantile", self.quantile, 0.0, 1.0)
        _check_int("projections", self.projections, 1)
        _check_int("grid", self.grid, 1)
        _check_choice("baseline", self.baseline, BASELINES)
        _check_choice("saliency_score", self.saliency_score, CHANGES)
        if self.masks_per_step is not None:
            _check_int("masks_per_step", self.masks_per_step, 1)
        _check_int("delay_steps", self.delay_steps, 0)
        _check_int("ramp_steps", self.ramp_steps, 0)
        if self.threshold is not None:
            _check_number("threshold", self.threshold, 0.0, 1.0)
        _check_range(self.input_range)
        object.__setattr__(self, "input_range", tuple(map(float, self.input_range)))
        self._check_pairs()

    def _check_pairs(self) -> None:
        if self.estimator not in REVERSE_MODE and self.norm == "l1":
            raise ValueError(
                f"norm='l1' needs the rows of the Jacobian: got estimator="
                f"{self.estimator!r}, expected one of {REVERSE_MODE}. "
                "Use norm='squared' with this estimator."
            )
        if self.estimator not in REVERSE_MODE and self.align_weight > 0:
            raise ValueError(
                f"align_weight > 0 needs the gradient map: got estimator="
                f"{self.estimator!r}, expected one of {REVERSE_MODE}."
            )
        weights = (self.jacobian_weight, self.selective_weight, self.align_weight)
        if self.penalty_weights == "auto" and not any(weights):
            raise ValueError(
                "penalty_weights='auto' moves a factor of the weights: got weights of "
                "0 only, expected one above 0. Their ratio is kept."
            )

    @property
    def uses_map(self) -> bool:
        """Whether the objective looks at a perturbation map at all."""
        selects = self.selective_weight > 0 and self.selection not in (
            "all",
            "none",
            "random",
        )
        return selects or self.align_weight > 0

    @property
    def selects(self) -> bool:
        """Whether the selective term is part of the objective."""
        return self.selective_weight > 0 and self.selection != "none"

    @property
    def needs_whole_map(self) -> bool:
        """Whether an unbiased estimate of the map is not enough."""
        return self.align_weight > 0 or (
            self.selective_weight > 0 and self.selection not in LINEAR_SELECTIONS
        )

    def get_config(self) -> dict[str, Any]:
        """Return the settings as JSON-ready keywords."""
        config = asdict(self)
        config["input_range"] = list(self.input_range)
        config["inputs"] = None if self.inputs is None else list(self.inputs)
        return config

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> PenaltySettings:
        """Make settings from what `get_config` returned."""
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(config) - known)
        if unknown:
            raise ValueError(
                f"Unknown settings: got {unknown}, expected among {sorted(known)}. "
                "The file may come from a newer version of keras_jsigr."
            )
        config = {**config, "input_range": tuple(config["input_range"])}
        if config.get("inputs") is not None:
            config["inputs"] = tuple(config["inputs"])
        return cls(**config)


def _check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"Unknown {name}: got {value!r}, expected one of {choices}.")


def _check_number(
    name: str, value: Any, low: float, high: float, advice: str = ""
) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(
            f"`{name}` must be a number: got {value!r} ({type(value).__name__}). "
            "Pass a Python float."
        )
    if not low <= value <= high or math.isinf(value):
        raise ValueError(
            f"`{name}` is out of range: got {value}, expected {low} to {high}.{advice}"
        )


def _check_int(name: str, value: Any, low: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < low:
        raise ValueError(f"`{name}` must be an integer >= {low}: got {value!r}.")


def _check_range(value: Any) -> None:
    ok = isinstance(value, (tuple, list)) and len(value) == 2
    if not ok or not all(math.isfinite(v) for v in value) or value[0] >= value[1]:
        raise ValueError(
            "`input_range` must be two finite numbers, the lower first: "
            f"got {value!r}. "
            "Give the range of the inputs that `fit` receives, such as (0.0, 1.0)."
        )
