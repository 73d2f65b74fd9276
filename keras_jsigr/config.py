"""The recipe of a hardened model: every expert setting, checked once."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal, get_args

import keras

from keras_jsigr.core import arguments
from keras_jsigr.core.arguments import BASELINES, CHANGES, BaselineName, ChangeName
from keras_jsigr.core.scores import SCORES, ScoreName
from keras_jsigr.penalties.alignment import SaliencyAlignment
from keras_jsigr.penalties.base import Penalty
from keras_jsigr.penalties.jacobian import (
    ESTIMATORS,
    NORMS,
    REVERSE_MODE,
    TARGETS,
    EstimatorName,
    JacobianNorm,
    NormName,
    TargetName,
)
from keras_jsigr.penalties.selective import (
    SELECTIONS,
    DirectionalNorm,
    LinearizedLoss,
    SelectionName,
    SelectiveInputGradient,
)

RecipeName = Literal["balanced", "fast", "interpretable"]
RECIPES: tuple[str, ...] = get_args(RecipeName)
_CHOICES: dict[str, tuple[str, ...]] = {
    "selective_target": TARGETS,
    "norm": NORMS,
    "estimator": ESTIMATORS,
    "class_score": SCORES,
    "selection": SELECTIONS,
}
_WEIGHTS = ("jacobian_weight", "selective_weight", "alignment_weight")


def _set(instance: Any, values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        object.__setattr__(instance, name, value)


def _changed(instance: Any) -> str:
    """Return the fields that differ from their defaults, as they would be written."""
    default = type(instance)()
    told = [
        f"{f.name}={_written(getattr(instance, f.name))}"
        for f in fields(instance)
        if getattr(instance, f.name) != getattr(default, f.name)
    ]
    return f"{type(instance).__name__}({', '.join(told)})"


def _written(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else repr(value)


@keras.saving.register_keras_serializable(package="keras_jsigr")
@dataclass(frozen=True, kw_only=True, repr=False)
class LiveMaps:
    """How perturbation maps of the training model itself are made in every step.

    Args:
        samples: Random occlusions per image and step, >= 1 (each costs a seventh to a
            half of a plain step); `None` means the whole grid.
        grid: Cells of the grid of occlusions per side, >= 1.
        baseline: What an occlusion shows: `"blur"`, `"mean"` or `"zero"`.
        score: How a change of the answer is scored: `"squared_logits"`,
            `"probability_drop"` or `"sarfa"`.

    Reference:
        arXiv 1711.00138 (perturbation saliency).

    Example:
        >>> import keras_jsigr as kj
        >>> kj.LiveMaps(samples=None)
        LiveMaps(samples=None)
    """

    samples: int | None = 1
    grid: int = 5
    baseline: BaselineName = "blur"
    score: ChangeName = "squared_logits"

    def __post_init__(self) -> None:
        arguments.choice("baseline", self.baseline, BASELINES)
        arguments.choice("score", self.score, CHANGES)
        _set(self, {"grid": arguments.count("grid", self.grid)})
        if self.samples is not None:
            _set(self, {"samples": arguments.count("samples", self.samples)})

    def get_config(self) -> dict[str, Any]:
        """Return the settings as JSON-ready keywords."""
        return asdict(self)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> LiveMaps:
        """Make settings from what `get_config` returned."""
        return cls(**config)

    def __repr__(self) -> str:
        return _changed(self)


@keras.saving.register_keras_serializable(package="keras_jsigr")
@dataclass(frozen=True, kw_only=True, repr=False)
class JSIGRConfig:
    """Every setting of the J-SIGR objective.

    The objective is `task loss + lambda_J R_J + lambda_S R_S + lambda_A R_A`, with the
    Jacobian `J = dz/dx` of the logits, the score `s` of the true class, a perturbation
    saliency map `S` in 0..1 and the selection `M` made of it:

    - `selective_target="score"`: `R_J = 1/2 ||J||_F^2` and
      `R_S = sum_i M_i |ds/dx_i|`, or for `norm="squared"`
      `1/2 sum_i M_i (ds/dx_i)^2` (3x the cost of a plain step);
    - `selective_target="jacobian"`: `R_J = sum_i ||J_:i||_2` and
      `R_S = sum_i M_i ||J_:i||_2`, or for `norm="squared"` half the squares, both from
      the same random projections (2x);
    - `selective_target="mixed"`: `R_J = sum_i |g_i|` and `R_S = sum_i M_i |g_i|`, or
      half the squares, with `g = (ds/dz + projection_std xi)^T J` and normal `xi` (2x);
    - `linearized=True`, for the targets `"score"` and `"mixed"`: in the place of
      `lambda_S R_S` is `log(1 + exp(lambda_S R_S - m)) - log(1 + exp(-m))` with the log
      odds `m` of the true class, whose gradient is in `R_S`;
    - `R_A = 1 - cos(|ds/dx|, S)`.

    All are means over examples, and gradients are taken per unit of the input range: a
    weight means the same at any batch size, replica count, number of projections and
    input scale. `balanced`, `fast` and `interpretable` make the measured recipes.

    Args:
        epsilon: The maximum-norm radius to withstand, in input units, > 0, or `None`:
            the default of attacks and evaluations. Training itself uses the weights and
            `start_radius`, which the recipes derive from it.
        jacobian_weight: `lambda_J >= 0`; a weight of 0 switches its term off.
        selective_weight: `lambda_S >= 0`.
        alignment_weight: `lambda_A >= 0`.
        selective_target: `"jacobian"`, `"mixed"` or `"score"`, see above.
        linearized: Whether the selective term is the growth of the linearized loss, see
            above; it needs `class_score="margin"` and `norm="l1"`.
        norm: `"l1"`, the dual norm of a maximum-norm adversary, or `"squared"`.
        estimator: `"random_projection"`; `"exact"` (C products; few classes);
            `"finite_difference"`, for layers without second derivatives; or `"jvp"`,
            forward mode. The last two need `norm="squared"`, no mixed target and no
            alignment.
        num_projections: Random projections per step, >= 1.
        projection_std: Standard deviation of `xi` in logits, >= 0.
        class_score: The score `s`: `"log_prob"`, `"margin"`, the log odds, or `"logit"`. The
            gradient of `"log_prob"` vanishes where the network learns its images by heart,
            and is at its largest where it stays unsure.
        selection: `M` from `S`: `"soft"` (`1 - S`), `"hard"` (the least salient
            `selection_quantile`), `"threshold"`; controls `"random"`, `"inverted"`,
            `"all"`, `"none"`. `"hard"`, `"threshold"`, `"inverted"` and the alignment
            need whole maps: cached ones, or `live_maps=LiveMaps(samples=None)`.
        selection_quantile: Share of the inputs for the hard selections, 0..1.
        selection_threshold: Level of `S` for `selection="threshold"`, 0..1; `None`
            means each map's mean plus one standard deviation.
        live_maps: How the maps are made where `harden` gets no cached ones.
        batch_share: Share of each batch, above 0 to 1, whose first examples the
            penalties look at: half of them saves a third of a step's time. The task
            loss looks at all. Batch normalization sees the two parts one by one.
        start_radius: Radius, in input units, >= 0, of the maximum-norm ball around each
            example from which every step draws the point where it takes loss and
            penalties, clipped to the input range; 0 means the example itself.
        start_patch_sizes: Sides, in pixels or steps, >= 1, of the patches that share
            one number of this noise; patterns of several sides are added and clipped to
            the ball. `(1,)`: every entry is drawn for itself.
        check_gradients: Whether `harden` verifies the derivatives that the estimator
            needs (a few eager passes).
        penalties: Further penalties, see `keras_jsigr.penalties.Penalty`.

    Raises:
        TypeError: If a setting has the wrong type.
        ValueError: If a setting is out of range, or two exclude each other.

    Reference:
        arXiv 2207.13036 (abstract); 1908.02729 (random projections); 1711.09404
        (input gradient regularization); 1711.00138 (perturbation saliency).

    Example:
        >>> import keras_jsigr as kj
        >>> kj.JSIGRConfig.balanced(epsilon=0.1).replace(start_radius=0.0).epsilon
        0.1
        >>> kj.JSIGRConfig(jacobian_weight=0.03, selection="all")
        JSIGRConfig(jacobian_weight=0.03, selection='all')
    """

    epsilon: float | None = None
    jacobian_weight: float = 0.005
    selective_weight: float = 0.015
    alignment_weight: float = 0.0
    selective_target: TargetName = "jacobian"
    linearized: bool = False
    norm: NormName = "l1"
    estimator: EstimatorName = "random_projection"
    num_projections: int = 1
    projection_std: float = 0.2
    class_score: ScoreName = "log_prob"
    selection: SelectionName = "soft"
    selection_quantile: float = 0.5
    selection_threshold: float | None = None
    live_maps: LiveMaps = field(default_factory=LiveMaps)
    batch_share: float = 1.0
    start_radius: float = 0.0
    start_patch_sizes: tuple[int, ...] = (1,)
    check_gradients: bool = True
    penalties: tuple[Penalty, ...] = ()

    def __post_init__(self) -> None:
        for name, options in _CHOICES.items():
            arguments.choice(name, getattr(self, name), options)
        _set(self, self._plain_numbers())
        if not isinstance(self.live_maps, LiveMaps):
            raise TypeError(
                f"Got {type(self.live_maps).__name__} as live_maps, expected "
                "keras_jsigr.LiveMaps(...)."
            )
        for name in ("check_gradients", "linearized"):
            if not isinstance(getattr(self, name), bool):
                raise TypeError(
                    f"`{name}` is no switch: got {getattr(self, name)!r}, expected True or False."
                )
        self._check_penalties()
        self._check_pairs()

    def _plain_numbers(self) -> dict[str, Any]:
        """Check the numbers and return them as Python's own, which JSON can carry."""
        off = "A weight of 0 switches its term off."
        numbers: dict[str, Any] = {
            name: arguments.number(name, getattr(self, name), minimum=0.0, advice=off)
            for name in _WEIGHTS
        }
        radius = "It is a radius in units of the inputs."
        if self.epsilon is not None:
            numbers["epsilon"] = arguments.number(
                "epsilon", self.epsilon, minimum=0.0, above=True, advice=radius
            )
        if self.selection_threshold is not None:
            numbers["selection_threshold"] = arguments.share(
                "selection_threshold", self.selection_threshold
            )
        return numbers | {
            "selection_quantile": arguments.share("selection_quantile", self.selection_quantile),
            "batch_share": arguments.share("batch_share", self.batch_share, ends="(]"),
            "num_projections": arguments.count("num_projections", self.num_projections),
            "projection_std": arguments.number(
                "projection_std",
                self.projection_std,
                minimum=0.0,
                advice="It is a standard deviation in units of the logits.",
            ),
            "start_radius": arguments.number(
                "start_radius", self.start_radius, minimum=0.0, advice=radius
            ),
            "start_patch_sizes": arguments.counts("start_patch_sizes", self.start_patch_sizes),
        }

    def _check_penalties(self) -> None:
        given = self.penalties
        if isinstance(given, Penalty) or not isinstance(given, tuple | list):
            raise TypeError(
                f"Got {type(given).__name__} as penalties, expected a tuple of objects "
                "such as `(MyPenalty(0.1),)`."
            )
        wrong = [each for each in given if not isinstance(each, Penalty)]
        if wrong:
            raise TypeError(
                f"Got {wrong[0]!r} among the penalties, expected an object whose class "
                "is derived from keras_jsigr.penalties.Penalty."
            )
        _set(self, {"penalties": tuple(given)})

    def _check_pairs(self) -> None:
        needs = {
            "norm='l1' needs the rows of the Jacobian": self.norm == "l1",
            "selective_target='mixed' needs the gradient of the score": (
                self.selective_target == "mixed"
            ),
            "alignment_weight > 0 needs the gradient map": self.alignment_weight > 0,
        }
        for need, present in needs.items():
            if present and self.estimator not in REVERSE_MODE:
                raise ValueError(
                    f"{need}: got estimator={self.estimator!r}, expected one of "
                    f"{REVERSE_MODE}. Use norm='squared', selective_target='jacobian' "
                    "or 'score', and alignment_weight=0 with this estimator."
                )
        if self.linearized and (self.selective_target == "jacobian" or self.norm != "l1"):
            raise ValueError(
                "A linearized loss is of the class score in a ball of the maximum norm: got "
                f"selective_target={self.selective_target!r} and norm={self.norm!r}, expected "
                "'score' or 'mixed', and 'l1'. Or use linearized=False."
            )
        names = [penalty.name for penalty in self.build_penalties()]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(
                f"Penalties have different names: got {names}, expected {twice} once. "
                "Pass another `name` to yours."
            )

    @classmethod
    def balanced(cls, epsilon: float, input_range: tuple[float, float] = (0.0, 1.0)) -> JSIGRConfig:
        """Return the recipe that makes networks most robust for its price.

        With `r = epsilon / width of input_range`: `selective_target="mixed"`,
        `linearized=True`, `class_score="margin"`, `jacobian_weight=0.1 r`,
        `selective_weight=0.8 r`, `batch_share=0.5`. Task loss and selective term are the
        loss at the worst point of a ball where the network is linear, over the pixels
        that the map leaves unmarked. Steps are taken at random points of the ball of
        radius epsilon that differ from the example in patches of pixels.

        Args:
            epsilon: Maximum-norm radius to withstand, in input units, > 0 and less than
                the width of the range.
            input_range: Range of the inputs that `fit` receives.

        Returns:
            The settings.

        Reference:
            Measured by `benchmarks/study.py`, docs/results/recipes.md.

        Example:
            >>> import keras_jsigr as kj
            >>> kj.JSIGRConfig.balanced(0.1).start_patch_sizes
            (2, 4, 7)
        """
        radius = _relative_radius(epsilon, input_range)
        return cls(
            epsilon=epsilon,
            jacobian_weight=0.1 * radius,
            selective_weight=0.8 * radius,
            selective_target="mixed",
            linearized=True,
            class_score="margin",
            batch_share=0.5,
            start_radius=epsilon,
            start_patch_sizes=(2, 4, 7),
        )

    @classmethod
    def fast(cls, epsilon: float, input_range: tuple[float, float] = (0.0, 1.0)) -> JSIGRConfig:
        """Return `balanced` with penalties on a quarter of each batch.

        Arguments as for `balanced`.

        Example:
            >>> import keras_jsigr as kj
            >>> kj.JSIGRConfig.fast(0.1).batch_share
            0.25
        """
        return cls.balanced(epsilon, input_range).replace(batch_share=0.25)

    @classmethod
    def interpretable(
        cls, epsilon: float, input_range: tuple[float, float] = (0.0, 1.0)
    ) -> JSIGRConfig:
        """Return the recipe whose gradient maps agree most with perturbation maps.

        `selective_target="jacobian"`, `selection="hard"`, `jacobian_weight=0.05 r`,
        `selective_weight=0.15 r`, at random points of the ball: it costs the least
        clean accuracy. It needs whole maps: pass `saliency_maps=` of a trained network
        to `harden`, or take the slow `.replace(live_maps=LiveMaps(samples=None))`.
        Arguments as for `balanced`.

        Example:
            >>> import keras_jsigr as kj
            >>> kj.JSIGRConfig.interpretable(0.1).selection
            'hard'
        """
        radius = _relative_radius(epsilon, input_range)
        return cls(
            epsilon=epsilon,
            jacobian_weight=0.05 * radius,
            selective_weight=0.15 * radius,
            selection="hard",
            start_radius=epsilon,
        )

    def replace(self, **changes: Any) -> JSIGRConfig:
        """Return new settings, the same but for `changes`, and checked again.

        Args:
            **changes: New values by the names of the settings.

        Example:
            >>> import keras_jsigr as kj
            >>> kj.JSIGRConfig().replace(norm="squared").norm
            'squared'
        """
        unknown = sorted(set(changes) - {f.name for f in fields(self)})
        if unknown:
            raise TypeError(
                f"Unknown settings: got {unknown}, expected among {[f.name for f in fields(self)]}."
            )
        return replace(self, **changes)

    def build_penalties(self) -> list[Penalty]:
        """Make the penalties of the objective, those with a weight of 0 left out.

        Example:
            >>> import keras_jsigr as kj
            >>> [type(p).__name__ for p in kj.JSIGRConfig().build_penalties()]
            ['JacobianNorm', 'SelectiveInputGradient']
        """
        selection: dict[str, Any] = {
            "selection": self.selection,
            "selection_quantile": self.selection_quantile,
            "selection_threshold": self.selection_threshold,
        }
        common: dict[str, Any] = {
            "estimator": self.estimator,
            "num_projections": self.num_projections,
        }
        target: dict[str, Any] = {
            "target": self.selective_target,
            "norm": self.norm,
            "projection_std": self.projection_std,
            "class_score": self.class_score,
        }
        selects = self.selective_weight > 0 and self.selection != "none"
        own: list[Penalty] = []
        shared = self.selective_target == "jacobian"
        if shared and self.estimator not in REVERSE_MODE:
            if self.jacobian_weight > 0 or selects:
                weights: dict[str, Any] = {
                    "jacobian_weight": self.jacobian_weight,
                    "selective_weight": self.selective_weight,
                }
                own.append(DirectionalNorm(**weights, **common, **selection))
            return [*own, *self.penalties]
        if self.jacobian_weight > 0:
            whole = {"norm": "squared"} if self.selective_target == "score" else target
            own.append(JacobianNorm(self.jacobian_weight, **common, **whole))
        if selects:
            kind = LinearizedLoss if self.linearized else SelectiveInputGradient
            own.append(kind(self.selective_weight, **common, **target, **selection))
        if self.alignment_weight > 0:
            own.append(SaliencyAlignment(self.alignment_weight, class_score=self.class_score))
        return [*own, *self.penalties]

    def get_config(self) -> dict[str, Any]:
        """Return the settings as JSON-ready keywords."""
        config = {f.name: getattr(self, f.name) for f in fields(self)}
        config["live_maps"] = self.live_maps.get_config()
        config["start_patch_sizes"] = list(self.start_patch_sizes)
        serialize = keras.saving.serialize_keras_object
        config["penalties"] = [serialize(penalty) for penalty in self.penalties]
        return config

    @classmethod
    def from_config(
        cls,
        config: Mapping[str, Any],
        custom_objects: dict[str, Any] | None = None,
    ) -> JSIGRConfig:
        """Make settings from what `get_config` returned, here or in version 0.1.0."""
        config = dict(config)
        if "form" in config:
            config = from_v0_1(config)[0]
        unknown = sorted(set(config) - {f.name for f in fields(cls)})
        if unknown:
            raise ValueError(
                f"Unknown settings: got {unknown}, expected among {[f.name for f in fields(cls)]}. "
                "The file may come from a newer version of keras_jsigr."
            )
        if isinstance(config.get("live_maps"), Mapping):
            config["live_maps"] = LiveMaps(**config["live_maps"])
        if "start_patch_sizes" in config:
            config["start_patch_sizes"] = tuple(config["start_patch_sizes"])
        config["penalties"] = tuple(
            keras.saving.deserialize_keras_object(each, custom_objects=custom_objects)
            for each in config.get("penalties", ())
        )
        return cls(**config)

    def __repr__(self) -> str:
        return _changed(self)


def _relative_radius(epsilon: Any, input_range: Any) -> float:
    """Return the radius as a share of the width of the range, both checked."""
    low, high = arguments.interval("input_range", input_range)
    advice = "It is the radius to withstand, in units of the inputs."
    radius = arguments.number("epsilon", epsilon, minimum=0.0, above=True, advice=advice)
    if radius >= high - low:
        raise ValueError(
            f"`epsilon` is out of range: got {radius:g}, expected less than the width "
            f"of input_range {high - low:g}. Pass the range of what `fit` receives, "
            "such as input_range=(0, 255)."
        )
    return radius / (high - low)


def named_recipe(name: Any, epsilon: Any, input_range: tuple[float, float]) -> JSIGRConfig:
    """Return the recipe of a name."""
    advice = "Or pass a keras_jsigr.JSIGRConfig."
    arguments.choice("recipe", name, RECIPES, advice=advice)
    make: Callable[..., JSIGRConfig] = getattr(JSIGRConfig, name)
    return make(epsilon, input_range)


# Of version 0.1.0: its keywords of `harden`, by what they became.
_RENAMED = {
    "jacobian_weight": "jacobian_weight",
    "selective_weight": "selective_weight",
    "align_weight": "alignment_weight",
    "form": "selective_target",
    "norm": "norm",
    "estimator": "estimator",
    "projections": "num_projections",
    "spread": "projection_std",
    "score": "class_score",
    "selection": "selection",
    "quantile": "selection_quantile",
    "threshold": "selection_threshold",
    "noise": "start_radius",
    "noise_patches": "start_patch_sizes",
    "probe": "check_gradients",
}
_LIVE_MAPS = {
    "masks_per_step": "samples",
    "grid": "grid",
    "baseline": "baseline",
    "saliency_score": "score",
}
_VALUES = {
    "form": {"fused": "jacobian", "guided": "mixed", "separate": "score"},
    "estimator": {"vjp": "random_projection"},
}
# Settings of the model or of training, not of the recipe.
_ELSEWHERE = (
    "penalty_weights",
    "accuracy_drop",
    "reference_accuracy",
    "maps",
    "delay_steps",
    "ramp_steps",
    "input_range",
    "inputs",
    "seed",
)
OLD_KEYWORDS = (*_RENAMED, *_LIVE_MAPS, *_ELSEWHERE)


def from_v0_1(old: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split settings of version 0.1.0 into those of a recipe and the others."""
    unknown = sorted(set(old) - set(OLD_KEYWORDS))
    if unknown:
        raise ValueError(f"Unknown settings: got {unknown}, of no version before.")
    new: dict[str, Any] = {
        _RENAMED[name]: _VALUES[name].get(value, value) if name in _VALUES else value
        for name, value in old.items()
        if name in _RENAMED
    }
    if "start_patch_sizes" in new:
        new["start_patch_sizes"] = tuple(new["start_patch_sizes"])
    if new.get("start_radius"):  # the ball that is trained in is the one to withstand
        new.setdefault("epsilon", float(new["start_radius"]))
    maps = {_LIVE_MAPS[name]: old[name] for name in old if name in _LIVE_MAPS}
    if maps:
        new["live_maps"] = LiveMaps(**maps)
    return new, {name: old[name] for name in old if name in _ELSEWHERE}


def preset(
    name: Literal["fast", "balanced", "faithful"],
    *,
    epsilon: float,
    input_range: tuple[float, float] = (0.0, 1.0),
) -> dict[str, Any]:
    """Return a recipe of version 0.1.0 as its keywords. Use `JSIGRConfig` instead."""
    radius = _relative_radius(epsilon, input_range)
    recipes: dict[str, dict[str, Any]] = {
        "balanced": {
            "form": "separate",
            "jacobian_weight": 3.0 * radius**2,
            "selective_weight": 1.2 * radius,
            "noise_patches": (2, 4, 7),
        },
        "fast": {
            "form": "guided",
            "jacobian_weight": 0.2 * radius,
            "selective_weight": 0.8 * radius,
        },
        "faithful": {
            "selection": "hard",
            "jacobian_weight": 0.05 * radius,
            "selective_weight": 0.15 * radius,
        },
    }
    arguments.choice("name", name, tuple(recipes))
    recipe = {"faithful": "interpretable"}.get(name, name)
    warnings.warn(
        f"`preset` is deprecated and will go with the next release. Write "
        f"harden(model, epsilon={epsilon}, recipe='{recipe}'), whose settings may differ, or "
        f"JSIGRConfig.{recipe}(epsilon={epsilon}).replace(...) to change them.",
        DeprecationWarning,
        stacklevel=2,
    )
    return {"input_range": input_range, "noise": float(epsilon), **recipes[name]}
