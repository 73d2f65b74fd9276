"""What is measured of saliency maps, and what the figures say in words."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_args

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from keras_jsigr.activations import has_relu, walk, with_smooth_activations
from keras_jsigr.attacks.base import AttackBatch
from keras_jsigr.attacks.gradient_attack import usable_part
from keras_jsigr.attacks.losses import misclassified
from keras_jsigr.attacks.norms import BALLS, round_towards, working_dtype
from keras_jsigr.attacks.pgd import PGD
from keras_jsigr.attacks.saliency_attack import BorrowedCurvature, SaliencyAttack
from keras_jsigr.core import arguments
from keras_jsigr.core.arguments import BASELINES, BaselineName
from keras_jsigr.core.batching import (
    BatchedFunction,
    classified_rightly,
    predict_logits,
)
from keras_jsigr.core.inputs import finite_rows
from keras_jsigr.core.logits import LogitsFn, base_model
from keras_jsigr.core.scores import class_targets
from keras_jsigr.evaluation.records import Better, Finding, SaliencyFigure
from keras_jsigr.evaluation.run import model_name
from keras_jsigr.saliency.base import Explainer, SaliencyMethod
from keras_jsigr.saliency.gradients import gradient_explainer
from keras_jsigr.saliency.masks import Layout, make_mask_bank
from keras_jsigr.saliency.metrics.faithfulness import (
    ControlName,
    control_map,
    deletion,
    insertion,
)
from keras_jsigr.saliency.metrics.localization import pointing_game, relevance_mass
from keras_jsigr.saliency.metrics.similarity import (
    agreement,
    rank_correlation,
    ssim,
    top_k_intersection,
)
from keras_jsigr.saliency.metrics.stability import (
    alignment,
    gini,
    local_lipschitz,
    randomization,
)
from keras_jsigr.saliency.perturbation import Perturbation, perturbation_explainer


def figure_of(
    values: Any,
    group: str,
    metric: str,
    condition: str = "",
    *,
    better: Better = "",
    used: Any = None,
    known: Any = None,
) -> SaliencyFigure:
    """Average a metric over the examples."""
    values = np.asarray(values, np.float64)
    used = np.ones(len(values), bool) if used is None else np.asarray(used)
    finite = np.isfinite(values) if known is None else np.isfinite(values) & known
    chosen = values[used & finite]
    n = len(chosen)
    return SaliencyFigure(
        group=group,
        metric=metric,
        condition=condition,
        better=better,
        mean=float(chosen.mean()) if n else None,
        error=float(chosen.std(ddof=1) / np.sqrt(n)) if n > 1 else None,
        images=n,
        unknown=int((used & ~finite).sum()),
    )


def unknown_values(figures: Sequence[SaliencyFigure]) -> list[str]:
    """Say which figures lack the values of some examples."""
    parts = [
        f"{' '.join([f.metric, *([f'({f.condition})'] if f.condition else [])])} "
        f"{f.unknown} of {f.images + f.unknown}"
        for f in figures
        if f.unknown
    ]
    if not parts:
        return []
    return [
        f"Values or maps that are NaN or infinite do not count: {'; '.join(parts)}."
    ]


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
class MapSettings:
    """The checked settings of a measurement."""

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
        """Return the settings as plain values."""
        plain = {
            "method": self.method_name,
            "teacher": None if self.teacher is None else model_name(self.teacher),
            "boxes": self.boxes is not None,
        }
        return {name: plain.get(name, value) for name, value in vars(self).items()}


def check_map_settings(
    x: npt.NDArray[Any],
    *,
    epsilon: float,
    norm: str,
    input_range: tuple[float, float],
    batch_size: int = 128,
    seed: int = 0,
    method: str | SaliencyMethod = "gradient",
    teacher: Any = None,
    boxes: Any = None,
    baselines: Sequence[str] = BASELINES,
    steps: int = 28,
    parts: Sequence[str] | None = None,
    top: float = 0.1,
    samples: int = 8,
    attack_steps: int = 20,
) -> MapSettings:
    """Check the settings of `evaluate_saliency` but for the threat model."""
    parts = PARTS if parts is None else parts
    for name, options, chosen in (
        ("baselines", BASELINES, baselines),
        ("parts", PARTS, parts),
    ):
        for one in [chosen] if isinstance(chosen, str) else chosen:
            arguments.choice(name, one, options)
    return MapSettings(
        method=method,
        epsilon=epsilon,
        norm=norm,
        input_range=input_range,
        teacher=teacher,
        boxes=None if boxes is None else _checked_boxes(boxes, x),
        baselines=tuple(kind for kind in get_args(BaselineName) if kind in baselines),
        steps=arguments.count("steps", steps),
        parts=tuple(part for part in get_args(PartName) if part in parts),
        top=arguments.share("top", top, ends="()"),
        samples=arguments.count("samples", samples),
        attack_steps=arguments.count("attack_steps", attack_steps),
        batch_size=arguments.count("batch_size", batch_size),
        seed=arguments.count("seed", seed, minimum=0),
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


@dataclass(frozen=True, kw_only=True)
class MapContext:
    """A model, the examples it is explained on, and their maps."""

    model: Any
    logits_fn: LogitsFn
    explain: Explainer
    x: npt.NDArray[Any]
    y: npt.NDArray[np.int64]
    boxes: Floats | None
    settings: MapSettings

    @cached_property
    def maps(self) -> Floats:
        """The maps at `x`, float32 `(N, *map_shape)`."""
        return np.asarray(self.explain(self.x, self.y))

    @cached_property
    def finite(self) -> npt.NDArray[np.bool_]:
        """Bool `(N,)`: the examples whose map is finite; only these are measured."""
        return finite_rows(self.maps)

    @property
    def layout(self) -> Layout | None:
        """What the axes of an example mean, as the method of the maps has it."""
        return self.explain.method.layout

    def probability(self, x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        """Return the probability of the classes explained."""
        logits = self.logits_fn(x)
        return tf.reduce_sum(class_targets(y, logits) * tf.nn.softmax(logits), axis=-1)


_MEASURES = ("rank correlation", "cosine", "overlap of the top halves")


def agreements(context: MapContext) -> list[SaliencyFigure]:
    """Compare the maps with perturbation maps of the model and of the teacher."""
    settings = context.settings
    others: dict[str, Any] = {}
    if not isinstance(context.explain.method, Perturbation):
        others["own perturbation map"] = context.model
    if settings.teacher is not None:
        others["teacher's perturbation map"] = settings.teacher
    compare = BatchedFunction(
        lambda a, b: tf.stack(agreement(a, b), axis=1), settings.batch_size
    )
    bank = make_mask_bank(context.x.shape[1:], layout=context.layout)
    figures = []
    for name, model in others.items():
        explain = perturbation_explainer(
            model, context.x[:1], bank, batch_size=settings.batch_size
        )
        theirs = np.asarray(explain(context.x, context.y))
        found = compare(context.maps, theirs)
        known = context.finite & finite_rows(theirs)
        figures += [
            figure_of(
                values,
                "Agreement",
                f"With the {name}",
                measure,
                better="higher",
                known=known,
            )
            for measure, values in zip(_MEASURES, found.T, strict=True)
        ]
    return figures


GROUP = "Faithfulness"
_METRICS: tuple[tuple[str, Any, Better], ...] = (
    ("Deletion", deletion, "lower"),
    ("Insertion", insertion, "higher"),
)


def faithfulness(context: MapContext) -> list[SaliencyFigure]:
    """Measure deletion and insertion in the order of the map and of the controls."""
    settings, layout = context.settings, context.layout
    low, seed = settings.input_range[0], (settings.seed, 0)
    orders = {"by the map": context.maps}
    for kind in get_args(ControlName):
        control = control_map(context.x, kind, seed=seed, low=low, layout=layout)
        orders[f"{kind} order"] = control.numpy()
    steps = min(settings.steps, int(np.prod(context.maps.shape[1:])))
    figures = []
    for name, metric, better in _METRICS:
        for baseline in settings.baselines:
            area = _area(
                context, metric, steps=steps, baseline=baseline, low=low, layout=layout
            )
            for order, maps in orders.items():
                values = area(context.x, maps, context.y)
                direction: Better = better if order == "by the map" else ""
                figures.append(
                    figure_of(
                        values,
                        GROUP,
                        name,
                        f"{baseline}, {order}",
                        better=direction,
                        # Of the controls too, which are compared with the map.
                        known=context.finite,
                    )
                )
    return figures


def _area(context: MapContext, metric: Any, **options: Any) -> BatchedFunction:
    def area(x: tf.Tensor, maps: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        return metric(lambda x: context.probability(x, y), x, maps, **options)

    return BatchedFunction(area, context.settings.batch_size)


SANITY_GROUP, METRIC, ALL = "Sanity", "Same map with shuffled weights", "all layers"


def sanity(context: MapContext) -> list[SaliencyFigure]:
    """Shuffle the weights layer by layer and compare the maps."""
    if not isinstance(context.model, keras.Model):
        return []
    found = randomization(
        context.explain, context.model, context.x, context.y, seed=context.settings.seed
    )
    names = [f"down to {name}" for name in found]
    names[-1] = ALL
    return [
        figure_of(
            values, SANITY_GROUP, METRIC, name, better="lower", known=context.finite
        )
        for name, values in zip(names, found.values(), strict=True)
    ]


# Shuffled weights leave the architecture: borders and strides alone correlate maps.
_SAME_MAP = 0.8


def findings(figures: Sequence[SaliencyFigure]) -> list[Finding]:
    """Say whether the maps depend on the weights and beat simple controls."""
    return [*_weights_matter(figures), *_beats_controls(figures)]


def _weights_matter(figures: Sequence[SaliencyFigure]) -> list[Finding]:
    found = [f for f in figures if (f.metric, f.condition) == (METRIC, ALL)]
    if not found:
        return []
    rule, title = "weights_matter", "The maps depend on the weights"
    same = found[0].mean
    if same is None or not math.isfinite(same):
        says = "Maps of the shuffled weights cannot be compared: no value is finite."
        return [_skipped(rule, title, says)]
    suspect = same > _SAME_MAP
    return [
        Finding(
            rule=rule,
            title=title,
            status="suspect" if suspect else "ok",
            says=(
                "The maps stay nearly the same when all weights are shuffled: they "
                "show the image or the architecture and not what was learned."
                if suspect
                else "The maps change when all weights are shuffled."
            ),
            figures={"rank_correlation": same, "suspect_above": _SAME_MAP},
            advice="Use another method of explanation." if suspect else "",
        )
    ]


def _beats_controls(figures: Sequence[SaliencyFigure]) -> list[Finding]:
    means: dict[str, dict[tuple[str, str], float]] = {}
    for figure in figures:
        if figure.group == GROUP:
            baseline, order = figure.condition.split(", ")
            value = math.nan if figure.mean is None else figure.mean
            means.setdefault(baseline, {})[figure.metric, order] = value
    if not means:
        return []
    rule, title = "beats_controls", "The maps name the pixels that matter"
    # The orders compare only over the same baselines.
    known = [m for m in means.values() if all(map(math.isfinite, m.values()))]
    if not known:
        says = "Deletion and insertion have no finite values to compare."
        return [_skipped(rule, title, says)]
    # Deletion should be small and insertion large: their difference is one figure.
    gain = {
        order: _mean([m["Insertion", order] - m["Deletion", order] for m in known])
        for order in dict.fromkeys(order for _, order in known[0])
    }
    own, chance, bright = gain.values()
    if own <= chance:
        says = "The order of the maps is no better than a random one."
        advice = "Do not show these maps as reasons of the decisions."
    elif own <= bright:
        says = "The maps beat a random order, but bright pixels first does as well."
        advice = ""
    else:
        says = "The order of the maps beats a random one and that of the intensity."
        advice = ""
    return [
        Finding(
            rule=rule,
            title=title,
            status="suspect" if own <= chance else "ok",
            says=f"{says} The figures are insertion minus deletion.",
            figures={key.replace(" ", "_"): value for key, value in gain.items()},
            advice=advice,
        )
    ]


def _skipped(rule: str, title: str, says: str) -> Finding:
    return Finding(rule=rule, title=title, status="skipped", says=says, figures={})


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


@dataclass(frozen=True, kw_only=True)
class KeptLabelPGD(PGD):
    """Attack the decision, and return the last iterate that still has the class `y`."""

    random_start: bool = False

    def search(
        self, logits_fn: LogitsFn, problem: AttackBatch, seed: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Attack one batch; see `Attack.search`."""
        origin = problem.origin
        ball = BALLS[self.norm](origin, self.epsilon, self.input_range, problem.region)

        def keep(x: tf.Tensor, kept: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
            lost = misclassified(logits, problem.targets)
            rows = tf.reshape(lost, [-1] + [1] * (x.shape.rank - 1))
            return tf.ensure_shape(tf.where(rows, kept, x), x.shape)

        def one_step(step: tf.Tensor, x: tf.Tensor, kept: Any, finite: Any) -> Any:
            gradient, logits = self.gradient(logits_fn, x, problem, state=(), seed=seed)
            kept = keep(x, kept, logits)
            gradient, healthy = usable_part(gradient)
            finite &= healthy
            moved = x + self.step_length * ball.steepest(gradient)
            return step + 1, ball.project(moved), kept, finite

        finite = tf.ones(tf.shape(origin)[:1], tf.bool)
        _, x, kept, finite = tf.while_loop(
            lambda step, *_: step < self.steps,
            one_step,
            (tf.constant(0), origin, origin, finite),
            maximum_iterations=self.steps,
        )
        return problem.see(keep(x, kept, problem.logits(logits_fn, x))), finite


def sparsity(context: MapContext) -> list[SaliencyFigure]:
    """Measure on how few pixels the maps are concentrated."""
    values = BatchedFunction(gini, context.settings.batch_size)(context.maps)
    known = context.finite
    return [figure_of(values, "Sparsity", "Gini index", better="higher", known=known)]


def smoothness(context: MapContext) -> list[SaliencyFigure]:
    """Measure how fast the maps change around the inputs."""
    settings = context.settings

    def constant(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        return local_lipschitz(
            lambda x: context.explain.core(x, y),
            x,
            radius=settings.epsilon,
            samples=settings.samples,
            seed=(settings.seed, 1),
            input_range=settings.input_range,
        )

    values = BatchedFunction(constant, settings.batch_size)(context.x, context.y)
    name = "Local Lipschitz constant"
    known = context.finite
    return [figure_of(values, "Stability", name, better="lower", known=known)]


def alignments(context: MapContext) -> list[SaliencyFigure]:
    """Measure how well the gradient of the logit is aligned with the image."""
    size = context.settings.batch_size
    gradient = gradient_explainer(
        context.model, context.x[:1], score="logit", reduce=False, batch_size=size
    )
    program = BatchedFunction(lambda x, g: tf.stack(alignment(x, g), axis=1), size)
    length, cosine = program(context.x, gradient(context.x, context.y)).T
    group, name = "Alignment", "Alignment of gradient and image"
    return [
        figure_of(length, group, name, "length, input units", better="higher"),
        figure_of(cosine, group, name, "cosine", better="higher"),
    ]


def localisation(context: MapContext) -> list[SaliencyFigure]:
    """Measure whether the maps lie on the objects, beside the level of chance."""
    if context.boxes is None:
        return []
    group, size = "Localisation", context.settings.batch_size
    hit, mass, area = (
        BatchedFunction(metric, size)(maps, context.boxes)
        for metric, maps in (
            (pointing_game, context.maps),
            (relevance_mass, context.maps),
            (relevance_mass, np.ones_like(context.maps)),
        )
    )
    known = context.finite
    return [
        figure_of(hit, group, "Pointing game", better="higher", known=known),
        figure_of(mass, group, "Relevance mass", better="higher", known=known),
        figure_of(
            area, group, "Area of the boxes", "what chance gives both", known=known
        ),
    ]


_HALVINGS = 40  # of the interval that holds a scale: to twelve digits
STABILITY_GROUP = "Stability"
Points = npt.NDArray[Any]


def stability(
    context: MapContext, *, condition: str, perturb: Callable[[MapContext], Points]
) -> list[SaliencyFigure]:
    """Compare the maps at the inputs and at perturbed inputs of the same class."""
    settings = context.settings
    points = perturb(context)
    logits = predict_logits(context.model, points, settings.batch_size)
    changes = (points - context.x).reshape(len(points), -1)
    used = classified_rightly(logits, context.y)
    if perturb is attacked_decision:
        # Where already the first step lost the class, there is nothing to compare.
        used &= changes.any(axis=1)
    metrics: dict[str, Any] = {
        "Top-k intersection": lambda a, b: top_k_intersection(a, b, top=settings.top),
        "Rank correlation": rank_correlation,
    }
    if context.maps.ndim == 3:
        metrics["SSIM"] = ssim
    program = BatchedFunction(
        lambda a, b: tf.stack([metric(a, b) for metric in metrics.values()], axis=1),
        settings.batch_size,
    )
    moved = np.asarray(context.explain(points, context.y))
    found = program(context.maps, moved)
    known = context.finite & finite_rows(moved)
    figures = [
        figure_of(
            values,
            STABILITY_GROUP,
            name,
            condition,
            better="higher",
            used=used,
            known=known,
        )
        for name, values in zip(metrics, found.T, strict=True)
    ]
    order = {"linf": np.inf, "l2": 2, "l1": 1}[settings.norm]
    lengths = np.linalg.norm(changes.astype(np.float64), order, axis=1)
    name = "Length of the perturbation"
    return [*figures, figure_of(lengths, STABILITY_GROUP, name, condition, used=used)]


def uniform_noise(context: MapContext) -> Points:
    """Draw a point of the ball per example."""
    settings, x = context.settings, tf.convert_to_tensor(context.x)
    origin = tf.cast(x, working_dtype(x.dtype))
    ball = BALLS[settings.norm](origin, settings.epsilon, settings.input_range)
    drawn = ball.sample(tf.constant([settings.seed, 2]))
    points: Points = round_towards(drawn, origin, x.dtype).numpy()
    return points


def gaussian_noise(context: MapContext) -> Points:
    """Add Gaussian noise as long, in the L2 norm, as the uniform noise."""
    settings, x = context.settings, context.x.astype(np.float64)
    noise = tf.random.stateless_normal(
        x.shape, (settings.seed, 3), dtype=x.dtype
    ).numpy()

    def length(points: Any) -> Any:
        axes = tuple(range(1, x.ndim))
        return np.sqrt(np.sum(np.square(points - x), axes, keepdims=True))

    def moved(scale: Any) -> Any:
        return (x + scale * noise).clip(*settings.input_range)

    wanted = length(uniform_noise(context).astype(np.float64))
    # The length grows with the scale: halve the interval that holds the right one.
    low, high = (
        np.zeros_like(wanted),
        64.0 * wanted / np.maximum(length(x + noise), 1e-12),
    )
    for _ in range(_HALVINGS):
        middle = (low + high) / 2.0
        short = length(moved(middle)) < wanted
        low, high = np.where(short, middle, low), np.where(short, high, middle)
    points: Points = moved(low).astype(context.x.dtype)
    return points


def attacked_decision(context: MapContext) -> Points:
    """Attack the decision by PGD as far as the class is kept."""
    return _attacked(KeptLabelPGD, context, context.model, context.y)


def attacked_map(context: MapContext) -> Points:
    """Attack the gradient map and keep the class."""
    return _attacked(
        SaliencyAttack, context, _curved(context.model), None, top=context.settings.top
    )


def _attacked(
    kind: Any, context: MapContext, model: Any, y: Any, **more: Any
) -> Points:
    settings = context.settings
    attack = kind(
        epsilon=settings.epsilon,
        norm=settings.norm,
        input_range=settings.input_range,
        steps=settings.attack_steps,
        batch_size=settings.batch_size,
        seed=settings.seed,
        verbose=0,
        **more,
    )
    points: Points = attack(model, context.x, y)
    return points


def _curved(model: Any) -> Any:
    """Give a ReLU network the second derivatives that attacking its map needs."""
    base = base_model(model)
    if not isinstance(base, keras.Model) or not any(map(has_relu, walk(base))):
        return model
    return BorrowedCurvature(model, with_smooth_activations(base, "softplus"))
