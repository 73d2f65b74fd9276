"""What is measured of saliency maps, and what the figures say in words."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import product
from statistics import fmean
from typing import Any, get_args

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from keras_jsigr.activations import has_relu, walk, with_smooth_activations
from keras_jsigr.attacks.base import AttackContext
from keras_jsigr.attacks.gradient_attack import where_rows, zero_nonfinite
from keras_jsigr.attacks.losses import misclassified
from keras_jsigr.attacks.norms import BALLS, distance, round_towards, working_dtype
from keras_jsigr.attacks.pgd import PGD
from keras_jsigr.attacks.saliency_attack import SaliencyAttack, SmoothSecondOrder
from keras_jsigr.core import arguments
from keras_jsigr.core.arguments import BASELINES
from keras_jsigr.core.batching import BatchedFunction, classified_rightly, predict_logits
from keras_jsigr.core.inputs import finite_rows
from keras_jsigr.core.logits import LogitsFn, base_model
from keras_jsigr.core.scores import class_targets
from keras_jsigr.evaluation.records import Better, Finding, SaliencyFigure, Status
from keras_jsigr.evaluation.run import Threat, model_name
from keras_jsigr.saliency import metrics
from keras_jsigr.saliency.base import Explainer, SaliencyMethod
from keras_jsigr.saliency.gradients import gradient_explainer
from keras_jsigr.saliency.masks import Layout, make_mask_bank
from keras_jsigr.saliency.perturbation import Perturbation, perturbation_explainer

Floats = npt.NDArray[np.float32]
Points = npt.NDArray[Any]
Figures = list[SaliencyFigure]


@dataclass(frozen=True, kw_only=True)
class MapSettings(Threat):
    """The settings of `evaluate_saliency`; the threat model is checked already."""

    method: str | SaliencyMethod = "gradient"
    teacher: Any = None
    boxes: Any = None
    baselines: Sequence[str] = BASELINES
    steps: int = 28
    parts: Any = None  # becomes a tuple of names
    top: float = 0.1
    samples: int = 8
    attack_steps: int = 20

    def __post_init__(self) -> None:
        """Check the settings and bring them to their plain types."""

        def put(name: str, value: Any) -> None:
            object.__setattr__(self, name, value)

        parts, known = self.parts, tuple(MEASURES)
        put("parts", _chosen("parts", known if parts is None else parts, known))
        put("baselines", _chosen("baselines", self.baselines, BASELINES))
        put("top", arguments.share("top", self.top, ends="()"))
        put("seed", arguments.count("seed", self.seed, minimum=0))
        for name in ("steps", "samples", "attack_steps", "batch_size"):
            put(name, arguments.count(name, getattr(self, name)))

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


def _chosen(name: str, chosen: Any, known: Sequence[str]) -> tuple[str, ...]:
    for one in [chosen] if isinstance(chosen, str) else chosen:
        arguments.choice(name, one, known)
    return tuple(one for one in known if one in chosen)


def check_boxes(boxes: Any, x: npt.NDArray[Any]) -> Floats | None:
    """Check one box `[x0, y0, x1, y1]` in pixels per image."""
    if boxes is None:
        return None
    found = np.asarray(boxes, np.float32)
    if x.ndim != 4 or found.shape != (len(x), 4):
        raise ValueError(
            f"`boxes` does not fit: got shape {found.shape} for data of shape "
            f"{x.shape}, expected ({len(x)}, 4) for images (N, H, W, C). Pass one box "
            "[x0, y0, x1, y1] in pixels per image."
        )
    low, high, ends = found[:, :2], found[:, 2:], x.shape[2:0:-1]
    fits = ((low >= 0) & (low < high) & (high <= np.asarray(ends))).all(axis=1)
    if not fits.all():
        first = int(np.flatnonzero(~fits)[0])
        raise ValueError(
            f"`boxes` is out of range: got {found[first].tolist()} at place {first}, expected 0 <= "
            f"x0 < x1 <= {ends[0]} and 0 <= y0 < y1 <= {ends[1]}. Columns come first, in pixels."
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

    def apply(self, function: Callable[..., tf.Tensor], *columns: Any) -> Any:
        """Apply a function of tensors to arrays of examples, compiled, in batches."""
        return BatchedFunction(function, self.settings.batch_size)(*columns)

    def figure(self, values: Any, *about: str, better: Better = "") -> SaliencyFigure:
        """Average a metric over the examples whose map is finite."""
        return figure_of(values, *about, better=better, known=self.finite)

    def probability(self, x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        """Return the probability of the classes explained."""
        logits = self.logits_fn(x)
        return tf.reduce_sum(class_targets(y, logits) * tf.nn.softmax(logits), axis=-1)


def figure_of(
    values: Any,
    group: str,
    metric: str,
    condition: str = "",
    *,
    better: Better = "",
    used: Any = True,
    known: Any = True,
) -> SaliencyFigure:
    """Average a metric over the examples."""
    values = np.asarray(values, np.float64)
    finite = np.isfinite(values) & known
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
        f"{f.metric}{f' ({f.condition})' if f.condition else ''} {f.unknown} of "
        f"{f.images + f.unknown}"
        for f in figures
        if f.unknown
    ]
    lost = "Values or maps that are NaN or infinite do not count: "
    return [f"{lost}{'; '.join(parts)}."] if parts else []


def faithfulness(context: MapContext) -> Figures:
    """Measure deletion and insertion in the order of the map and of the controls."""
    settings, layout = context.settings, context.layout
    low, seed = settings.input_range[0], (settings.seed, 0)
    orders, figures = {"by the map": context.maps}, []
    for kind in get_args(metrics.ControlName):
        about: Any = {"seed": seed, "low": low, "layout": layout}
        orders[f"{kind} order"] = metrics.control_map(context.x, kind, **about).numpy()
    steps = min(settings.steps, int(np.prod(context.maps.shape[1:])))
    areas: list[tuple[str, Any, Better]] = [
        ("Deletion", metrics.deletion, "lower"),
        ("Insertion", metrics.insertion, "higher"),
    ]
    for (name, metric, better), baseline in product(areas, settings.baselines):
        area = partial(metric, steps=steps, baseline=baseline, low=low, layout=layout)

        def area_of(x: Any, maps: Any, y: Any, area: Any = area) -> tf.Tensor:
            return area(lambda x: context.probability(x, y), x, maps)

        measure = BatchedFunction(area_of, settings.batch_size)
        for order, maps in orders.items():
            values = measure(context.x, maps, context.y)
            about = ("Faithfulness", name, f"{baseline}, {order}")
            shown: Better = better if order == "by the map" else ""
            # The controls are compared with the map: on the same examples.
            figures.append(context.figure(values, *about, better=shown))
    return figures


def agreements(context: MapContext) -> Figures:
    """Compare the maps with perturbation maps of the model and of the teacher."""
    own = isinstance(context.explain.method, Perturbation)
    others = {
        "own perturbation map": None if own else context.model,
        "teacher's perturbation map": context.settings.teacher,
    }
    bank = make_mask_bank(context.x.shape[1:], layout=context.layout)
    names = ("rank correlation", "cosine", "overlap of the top halves")
    figures = []
    for name, model in others.items():
        if model is None:
            continue
        size = context.settings.batch_size
        explain = perturbation_explainer(model, context.x[:1], bank, batch_size=size)
        theirs = np.asarray(explain(context.x, context.y))
        known = context.finite & finite_rows(theirs)
        found = context.apply(
            lambda a, b: tf.stack(metrics.agreement(a, b), axis=1), context.maps, theirs
        )
        about = ("Agreement", f"With the {name}")
        figures += [
            figure_of(values, *about, measure, better="higher", known=known)
            for measure, values in zip(names, found.T, strict=True)
        ]
    return figures


def sparsity(context: MapContext) -> Figures:
    """Measure on how few pixels the maps are concentrated."""
    values = context.apply(metrics.gini, context.maps)
    return [context.figure(values, "Sparsity", "Gini index", better="higher")]


def alignments(context: MapContext) -> Figures:
    """Measure how well the gradient of the logit is aligned with the image."""
    size, x = context.settings.batch_size, context.x
    explain = gradient_explainer(context.model, x[:1], score="logit", reduce=False, batch_size=size)

    def both(x: tf.Tensor, gradient: tf.Tensor) -> tf.Tensor:
        return tf.stack(metrics.alignment(x, gradient), axis=1)

    length, cosine = context.apply(both, x, explain(x, context.y)).T
    about = ("Alignment", "Alignment of gradient and image")
    return [
        figure_of(length, *about, "length, input units", better="higher"),
        figure_of(cosine, *about, "cosine", better="higher"),
    ]


def localization(context: MapContext) -> Figures:
    """Measure whether the maps lie on the objects, beside the level of chance."""
    if context.boxes is None:
        return []
    maps, boxes = context.maps, context.boxes
    hit = context.apply(metrics.pointing_game, maps, boxes)
    mass = context.apply(metrics.relevance_mass, maps, boxes)
    area = context.apply(metrics.relevance_mass, np.ones_like(maps), boxes)
    group, bound = "Localisation", "what chance gives both"
    return [
        context.figure(hit, group, "Pointing game", better="higher"),
        context.figure(mass, group, "Relevance mass", better="higher"),
        context.figure(area, group, "Area of the boxes", bound),
    ]


def smoothness(context: MapContext) -> Figures:
    """Measure how fast the maps change around the inputs."""
    settings = context.settings

    def constant(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        return metrics.local_lipschitz(
            lambda x: context.explain.core(x, y),
            x,
            radius=settings.epsilon,
            samples=settings.samples,
            seed=(settings.seed, 1),
            input_range=settings.input_range,
        )

    values = context.apply(constant, context.x, context.y)
    about = ("Stability", "Local Lipschitz constant")
    return [context.figure(values, *about, better="lower")]


def sanity(context: MapContext) -> Figures:
    """Shuffle the weights layer by layer and compare the maps."""
    if not isinstance(context.model, keras.Model):
        return []
    about = (context.explain, context.model, context.x, context.y)
    found = metrics.randomization(*about, seed=context.settings.seed)
    names = [*(f"down to {name}" for name in list(found)[:-1]), _ALL]
    return [
        context.figure(values, "Sanity", _SAME, name, better="lower")
        for name, values in zip(names, found.values(), strict=True)
    ]


def stability(
    condition: str, perturb: Callable[[MapContext], Points], context: MapContext
) -> Figures:
    """Compare the maps at the inputs and at perturbed inputs of the same class."""
    settings = context.settings
    points = perturb(context)
    logits = predict_logits(context.model, points, settings.batch_size)
    used = classified_rightly(logits, context.y)
    lengths = distance(points, context.x, settings.norm)
    if perturb is attacked_decision:
        # Where already the first step lost the class, there is nothing to compare.
        used &= lengths > 0
    alike: dict[str, Any] = {
        "Top-k intersection": partial(metrics.top_k_intersection, top=settings.top),
        "Rank correlation": metrics.rank_correlation,
    }
    if context.maps.ndim == 3:
        alike["SSIM"] = metrics.ssim
    moved = np.asarray(context.explain(points, context.y))
    found = context.apply(
        lambda a, b: tf.stack([metric(a, b) for metric in alike.values()], axis=1),
        context.maps,
        moved,
    )
    figure = partial(figure_of, group="Stability", condition=condition, used=used)
    figure = partial(figure, known=context.finite & finite_rows(moved))
    figures = [
        figure(values, metric=name, better="higher")
        for name, values in zip(alike, found.T, strict=True)
    ]
    return [*figures, figure(lengths, metric="Length of the perturbation", known=True)]


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
    seed = (settings.seed, 3)
    noise = tf.random.stateless_normal(x.shape, seed, dtype=x.dtype).numpy()

    def length(points: Any) -> Any:
        axes = tuple(range(1, x.ndim))
        return np.sqrt(np.sum(np.square(points - x), axes, keepdims=True))

    def moved(scale: Any) -> Any:
        return (x + scale * noise).clip(*settings.input_range)

    wanted = length(uniform_noise(context).astype(np.float64))
    # The length grows with the scale: bisection, to twelve digits.
    low = np.zeros_like(wanted)
    high = 64.0 * wanted / np.maximum(length(x + noise), 1e-12)
    for _ in range(40):
        middle = (low + high) / 2.0
        short = length(moved(middle)) < wanted
        low, high = np.where(short, middle, low), np.where(short, high, middle)
    points: Points = moved(low).astype(context.x.dtype)
    return points


def attacked_decision(context: MapContext) -> Points:
    """Attack the decision by PGD as far as the class is kept."""
    return _attacked(KeptLabelPGD, context, context.model, context.y)


def attacked_map(context: MapContext) -> Points:
    """Attack the gradient map and keep the class.

    Of a ReLU network, by the second derivatives of its smooth copy.
    """
    model, base = context.model, base_model(context.model)
    if isinstance(base, keras.Model) and any(map(has_relu, walk(base))):
        model = SmoothSecondOrder(model, with_smooth_activations(base, "softplus"))
    return _attacked(SaliencyAttack, context, model, None, top=context.settings.top)


@dataclass(frozen=True, kw_only=True)
class KeptLabelPGD(PGD):
    """Attack the decision, and return the last iterate that still has the class `y`."""

    random_start: bool = False

    def search(self, context: AttackContext) -> tuple[tf.Tensor, tf.Tensor]:
        """Attack one batch; see `Attack.search`."""
        origin, ball = context.origin, context.ball
        length = self.step_length(context.epsilon)

        def keep(x: tf.Tensor, kept: tf.Tensor, logits: Any) -> tf.Tensor:
            lost = misclassified(logits, context.targets)
            return tf.ensure_shape(where_rows(lost, kept, x), x.shape)

        def one_step(step: tf.Tensor, x: tf.Tensor, kept: Any, finite: Any) -> Any:
            gradient, logits = self.gradient(context, x, state=(), seed=context.seed)
            gradient, healthy = zero_nonfinite(gradient)
            moved = ball.project(x + length * ball.steepest(gradient))
            return step + 1, moved, keep(x, kept, logits), finite & healthy

        finite = tf.ones(tf.shape(origin)[:1], tf.bool)
        _, x, kept, finite = tf.while_loop(
            lambda step, *_: step < self.steps,
            one_step,
            (tf.constant(0), origin, origin, finite),
            maximum_iterations=self.steps,
        )
        return context.to_model_input(keep(x, kept, context.logits(x))), finite


def _attacked(kind: Any, context: MapContext, model: Any, y: Any, **more: Any) -> Points:
    settings = context.settings
    attack = kind(**settings.threat, steps=settings.attack_steps, verbose=0, **more)
    points: Points = attack(model, context.x, y)
    return points


# The parts of a measurement, in the order of the report.
MEASURES: dict[str, Callable[[MapContext], Figures]] = {
    "faithfulness": faithfulness,
    "agreement": agreements,
    "sparsity": sparsity,
    "alignment": alignments,
    "localisation": localization,
    "smoothness": smoothness,
    "uniform_noise": partial(stability, "uniform noise", uniform_noise),
    "gaussian_noise": partial(stability, "Gaussian noise", gaussian_noise),
    "pgd": partial(stability, "PGD, class kept", attacked_decision),
    "saliency_attack": partial(stability, "saliency attack", attacked_map),
    "sanity": sanity,
}

_SAME, _ALL = "Same map with shuffled weights", "all layers"
# Shuffled weights leave the architecture: borders and strides alone correlate maps.
_SAME_MAP = 0.8


def findings(figures: Sequence[SaliencyFigure]) -> list[Finding]:
    """Say whether the maps depend on the weights and beat simple controls."""
    return [*_weights_matter(figures), *_beats_controls(figures)]


def _weights_matter(figures: Sequence[SaliencyFigure]) -> Iterator[Finding]:
    about = ("weights_matter", "The maps depend on the weights")
    for same in (f.mean for f in figures if (f.metric, f.condition) == (_SAME, _ALL)):
        if same is None or not math.isfinite(same):
            says = "Maps of the shuffled weights cannot be compared: no value is finite."
            yield _finding(*about, says)
            return
        says, advice = "The maps change when all weights are shuffled.", ""
        if same > _SAME_MAP:
            says = (
                "The maps stay nearly the same when all weights are shuffled: they "
                "show the image or the architecture and not what was learned."
            )
            advice = "Use another method of explanation."
        numbers = {"rank_correlation": same, "suspect_above": _SAME_MAP}
        yield _finding(*about, says, numbers, advice)


def _beats_controls(figures: Sequence[SaliencyFigure]) -> Iterator[Finding]:
    means: dict[str, dict[tuple[str, str], float]] = {}
    for figure in figures:
        if figure.group == "Faithfulness":
            baseline, order = figure.condition.split(", ")
            value = math.nan if figure.mean is None else figure.mean
            means.setdefault(baseline, {})[figure.metric, order] = value
    if not means:
        return
    about = ("beats_controls", "The maps name the pixels that matter")
    # The orders compare only over the same baselines.
    known = [m for m in means.values() if all(map(math.isfinite, m.values()))]
    if not known:
        says = "Deletion and insertion have no finite values to compare."
        yield _finding(*about, says)
        return
    # Deletion should be small and insertion large: their difference is one figure.
    gain = {
        order.replace(" ", "_"): fmean(m["Insertion", order] - m["Deletion", order] for m in known)
        for order in dict.fromkeys(order for _, order in known[0])
    }
    own, chance, bright = gain.values()
    advice = ""
    if own <= chance:
        says = "The order of the maps is no better than a random one."
        advice = "Do not show these maps as reasons of the decisions."
    elif own <= bright:
        says = "The maps beat a random order, but bright pixels first does as well."
    else:
        says = "The order of the maps beats a random one and that of the intensity."
    says = f"{says} The figures are insertion minus deletion."
    yield _finding(*about, says, gain, advice)


def _finding(rule: str, title: str, says: str, figures: Any = None, advice: str = "") -> Finding:
    """Make a finding: skipped without figures, suspect if there is an advice."""
    status: Status = "suspect" if advice else "ok" if figures else "skipped"
    about = {"rule": rule, "title": title, "says": says, "advice": advice}
    return Finding(**about, status=status, figures=figures or {})
