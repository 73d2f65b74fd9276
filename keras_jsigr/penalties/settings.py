"""Everything that defines the objective, checked once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from keras_jsigr.core import arguments
from keras_jsigr.core.arguments import BASELINES, CHANGES, BaselineName, ChangeName
from keras_jsigr.core.scores import SCORES, ScoreName
from keras_jsigr.penalties.jacobian import NORMS, NormName
from keras_jsigr.penalties.selective import LINEAR_SELECTIONS, SELECTIONS, SelectionName

EstimatorName = Literal["vjp", "jvp", "finite_difference", "exact"]


FormName = Literal["fused", "guided", "separate"]


WeightsName = Literal["fixed", "auto"]


REVERSE_MODE = ("vjp", "exact")


CHOICES: dict[str, tuple[str, ...]] = {
    "penalty_weights": get_args(WeightsName),
    "form": get_args(FormName),
    "norm": NORMS,
    "estimator": get_args(EstimatorName),
    "score": SCORES,
    "selection": SELECTIONS,
    "baseline": BASELINES,
    "saliency_score": CHANGES,
}


WEIGHTS = ("jacobian_weight", "selective_weight", "align_weight")


SHARES = ("accuracy_drop", "reference_accuracy", "quantile", "threshold")


COUNTS = ("projections", "grid", "masks_per_step")


STEPS = ("delay_steps", "ramp_steps")


SPREAD = "It is a standard deviation in units of the logits."


RADIUS = "It is a radius in units of the inputs; 0 means none."


# May be `None`.
OPTIONAL = ("reference_accuracy", "threshold", "masks_per_step")


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
    spread: float = 0.2
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
    noise: float = 0.0
    noise_patches: tuple[int, ...] = (1,)
    inputs: tuple[str, ...] | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Check every value and every pair that excludes each other."""
        for name, options in CHOICES.items():
            arguments.choice(name, getattr(self, name), options)
        off = "A weight of 0 switches its term off."
        plain: dict[str, Any] = {
            **self._each(WEIGHTS, arguments.number, minimum=0.0, advice=off),
            **self._each(SHARES, arguments.share),
            **self._each(COUNTS, arguments.count),
            **self._each(STEPS, arguments.count, minimum=0),
            "seed": arguments.count("seed", self.seed, minimum=-(2**31)),
            "input_range": arguments.interval("input_range", self.input_range),
            "noise": arguments.number("noise", self.noise, minimum=0.0, advice=RADIUS),
            "noise_patches": arguments.counts("noise_patches", self.noise_patches),
            "spread": arguments.number(
                "spread", self.spread, minimum=0.0, advice=SPREAD
            ),
        }
        # Plain Python numbers, which a configuration can carry.
        for name, value in plain.items():
            object.__setattr__(self, name, value)
        self._check_pairs()

    def _each(
        self, names: tuple[str, ...], check: Callable[..., Any], **limits: Any
    ) -> dict[str, Any]:
        """Return the settings as their check returns them; `None` stays."""
        values = {name: getattr(self, name) for name in names}
        return {
            name: check(name, value, **limits)
            for name, value in values.items()
            if value is not None or name not in OPTIONAL
        }

    def _check_pairs(self) -> None:
        needs = {
            "norm='l1' needs the rows of the Jacobian": self.norm == "l1",
            "form='guided' needs the gradient of the score": self.form == "guided",
            "align_weight > 0 needs the gradient map": self.align_weight > 0,
        }
        for need, present in needs.items():
            if present and self.estimator not in REVERSE_MODE:
                raise ValueError(
                    f"{need}: got estimator={self.estimator!r}, expected one of "
                    f"{REVERSE_MODE}. Use norm='squared', form='fused' or 'separate', "
                    "and align_weight=0 with this estimator."
                )
        width = self.input_range[1] - self.input_range[0]
        if self.noise > width:
            raise ValueError(
                f"`noise` is wider than the inputs: got {self.noise:g}, expected at "
                f"most {width:g}, the width of input_range={self.input_range}. Both "
                "are in the units of the inputs."
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
        config["noise_patches"] = list(self.noise_patches)
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
