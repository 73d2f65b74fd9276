"""Attacks that look for the closest fooling point: their base, and DeepFool."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import keras
import tensorflow as tf

from keras_jsigr.attacks.base import Attack, AttackContext, run_batches
from keras_jsigr.attacks.gradient_attack import (
    expand_dims_like,
    nonzero_rows,
    scaled_gradient,
    scatter_rows,
    take_rows,
    where_rows,
    zero_nonfinite,
)
from keras_jsigr.attacks.losses import LossName, attack_loss
from keras_jsigr.attacks.norms import BALLS, l2_norm, round_towards, working_dtype
from keras_jsigr.core import arguments
from keras_jsigr.core.batching import join_batches, parallel_batches
from keras_jsigr.core.logits import as_classes, has_valid_logits
from keras_jsigr.core.scores import masked_dot


class Closest(NamedTuple):
    """Hold the closest fooling point per example and its distance from the input."""

    x: tf.Tensor
    distance: tf.Tensor

    @classmethod
    def none(cls, origin: tf.Tensor) -> Closest:
        """Return the state before the search: no fooling point, the largest distance."""
        # No infinities, on which `tf.debugging.enable_check_numerics()` would stop.
        return cls(origin, tf.fill(tf.shape(origin)[:1], origin.dtype.max))

    @property
    def found(self) -> tf.Tensor:
        """Bool `(B,)`: a fooling point is known."""
        return self.distance < self.distance.dtype.max

    def or_closer(self, x: tf.Tensor, fools: tf.Tensor, origin: tf.Tensor, norm: str) -> Closest:
        """Take the points that fool and are closer than those known."""
        new = Closest(x, lengths(x - origin, norm))
        return where_rows(fools & (new.distance < self.distance), new, self)


def lengths(delta: tf.Tensor, norm: str) -> tf.Tensor:
    """Compute `||delta_b||_p` per example."""
    axes = list(range(1, delta.shape.rank))
    if norm == "l2":
        return tf.reshape(l2_norm(delta), [-1])
    reduce = {"linf": tf.reduce_max, "l1": tf.reduce_sum}[norm]
    return reduce(tf.abs(delta), axes)


def linear_projection(
    x: tf.Tensor,
    weights: tf.Tensor,
    gap: tf.Tensor,
    input_range: tuple[float, float],
    norm: str = "l2",
) -> tf.Tensor:
    """Compute `argmin ||z - x||_p` over `<w, z - x> + gap = 0`, `low <= z <= high`."""
    flat = tf.reshape(x, [tf.shape(x)[0], -1])
    w = tf.reshape(weights, tf.shape(flat))
    # Squares of small gradients vanish in float32; the plane is that of any multiple.
    size = tf.reduce_max(tf.abs(w), axis=-1, keepdims=True)
    size = tf.where(size > 0, size, tf.ones_like(size))
    w, gap = w / size, gap / size[:, 0]
    towards = -tf.sign(w) * tf.sign(gap)[:, None]
    low, high = input_range
    room = tf.where(towards > 0, high - flat, flat - low)
    # Without this, a zero weight would be asked for an infinite step.
    room = tf.where(towards == 0, tf.zeros_like(room), tf.maximum(room, 0.0))
    steps = _STEPS[norm](tf.abs(w), room, tf.abs(gap))
    z = tf.clip_by_value(flat + towards * steps, low, high)
    return tf.ensure_shape(tf.reshape(z, tf.shape(x)), x.shape)


def _l1_steps(slope: tf.Tensor, room: tf.Tensor, gap: tf.Tensor) -> tf.Tensor:
    """Fill the components of the largest slopes first."""
    order = tf.argsort(slope, axis=-1, direction="DESCENDING", stable=True)
    slope = tf.gather(slope, order, batch_dims=1)
    room = tf.gather(room, order, batch_dims=1)
    # Sums of many float32 lose the digits that the last, partial step is made of.
    gain = tf.cast(slope * room, tf.float64)
    before = tf.cumsum(gain, axis=-1, exclusive=True)
    missing = tf.cast(tf.cast(gap, tf.float64)[:, None] - before, slope.dtype)
    missing = tf.clip_by_value(missing, 0.0, slope * room)
    steps = tf.minimum(tf.math.divide_no_nan(missing, slope), room)
    return tf.gather(steps, tf.argsort(order, axis=-1), batch_dims=1)


def _even_steps(slope: tf.Tensor, speed: tf.Tensor, room: tf.Tensor, gap: tf.Tensor) -> tf.Tensor:
    """Solve `sum_i slope_i * min(room_i, t * speed_i) = gap`; return the steps."""
    gain, reach, zero = slope * room, slope * speed, tf.zeros_like(room)

    def next_time(full: tf.Tensor) -> tf.Tensor:
        rest = gap - tf.reduce_sum(tf.where(full, gain, zero), axis=-1)
        free = tf.reduce_sum(tf.where(full, zero, reach), axis=-1)
        t = tf.maximum(tf.math.divide_no_nan(rest, free), 0.0)
        # No component is left to move: the plane is out of reach.
        return tf.where(free > 0, t, tf.fill(tf.shape(t), t.dtype.max))[:, None]

    def body(full: tf.Tensor, t: tf.Tensor, go_on: tf.Tensor) -> Any:
        del go_on
        more = full | (t * speed >= room)
        return more, next_time(more), tf.reduce_any(more != full)

    full = room <= 0
    start = (full, next_time(full), tf.constant(True))
    full, t, _ = tf.while_loop(lambda full, t, go_on: go_on, body, start)
    return tf.where(full, room, tf.minimum(t * speed, room))


_STEPS: dict[str, Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]] = {
    "linf": lambda slope, room, gap: _even_steps(slope, tf.ones_like(slope), room, gap),
    "l2": lambda slope, room, gap: _even_steps(slope, slope, room, gap),
    "l1": _l1_steps,
}


def top_other_classes(logits: tf.Tensor, targets: tf.Tensor, count: int) -> tf.Tensor:
    """Return the other classes with the largest logits, the largest first."""
    logits = as_classes(logits)
    classes = logits.shape[-1]
    label = tf.one_hot(label_of(targets), classes, on_value=True, off_value=False)
    # Below every logit, so that the label itself comes last and is cut off.
    lowest = logits.dtype.min
    others = tf.where(label, lowest, tf.maximum(logits, lowest / 2.0))
    return tf.math.top_k(others, min(count, classes - 1)).indices


def label_of(targets: tf.Tensor) -> tf.Tensor:
    """Return the class of target rows `(B, C)`, int32 `(B,)`."""
    if targets.shape[-1] == 1:
        return tf.cast(targets[:, 0] > 0.5, tf.int32)
    return tf.argmax(targets, axis=-1, output_type=tf.int32)


# The least margin of a fooling point, relative to its logits and to what they sum up.
_SAFE, _NOISE = 1e-5, 1e-6
# A class so far below the largest logit has the probability zero in float32.
_RULED_OUT = 104.0


class Boundary(NamedTuple):
    """Hold a plane per example: `<weights, z - point> + gap = 0`."""

    weights: tf.Tensor
    gap: tf.Tensor
    finite: tf.Tensor


def nearest_boundary(
    context: AttackContext,
    point: tf.Tensor,
    rivals: tf.Tensor | None,
    input_range: tuple[float, float],
) -> Boundary:
    """Linearize the logits; return the plane of the nearest rival within the range.

    `rivals` holds classes `(B, R)`; `None` stands for the likeliest other class.
    """
    with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
        tape.watch(point)
        logits = as_classes(context.logits(point))
    classes = logits.shape[-1]
    label = tf.one_hot(label_of(context.targets), classes)

    def plane(rival: tf.Tensor) -> Boundary:
        difference = tf.one_hot(rival, classes) - label
        gradient = scaled_gradient(tape, logits, point, difference)
        gradient = tf.ensure_shape(gradient, point.shape)
        gap = masked_dot(logits, difference) - safe_margin(logits, context)
        weights, healthy = zero_nonfinite(gradient)
        # No boundary with a class that is ruled out.
        there = tf.math.is_finite(gap)
        weights = where_rows(there, weights, tf.zeros_like(weights))
        gap = tf.where(there, gap, tf.zeros_like(gap))
        return Boundary(weights, tf.cast(gap, point.dtype), healthy)

    if rivals is None:
        rivals = top_other_classes(logits, context.targets, 1)
    if rivals.shape[-1] == 1:
        return plane(rivals[:, 0])

    def body(number: tf.Tensor, best: Boundary, nearest: tf.Tensor) -> Any:
        new = plane(rivals[:, number])
        distance = _distance(new, point, input_range, context.norm)
        finite = best.finite & new.finite
        take = distance < nearest
        best = where_rows(take, new, best)._replace(finite=finite)
        return number + 1, best, tf.where(take, distance, nearest)

    each = tf.zeros(tf.shape(point)[:1], point.dtype)
    nothing = Boundary(tf.zeros_like(point), each, each == 0)
    count = rivals.shape[-1]
    best: Boundary
    _, best, _ = tf.while_loop(
        lambda number, *_: number < count,
        body,
        (tf.constant(0), nothing, tf.fill(tf.shape(each), each.dtype.max)),
        maximum_iterations=count,
    )
    return best


def _distance(
    plane: Boundary, point: tf.Tensor, input_range: tuple[float, float], norm: str
) -> tf.Tensor:
    foot = linear_projection(point, plane.weights, plane.gap, input_range, norm)
    length = lengths(foot - point, norm)
    gained = tf.abs(plane.gap) - tf.abs(value_at(plane, point, foot))
    share = tf.math.divide_no_nan(gained, tf.abs(plane.gap))
    return tf.where(share > 0, tf.math.divide_no_nan(length, share), length.dtype.max)


def value_at(plane: Boundary, point: tf.Tensor, z: tf.Tensor) -> tf.Tensor:
    """Compute the linear function of a plane elsewhere."""
    axes = list(range(1, point.shape.rank))
    return plane.gap + tf.reduce_sum(plane.weights * (z - point), axes)


def safe_margin(logits: tf.Tensor, context: AttackContext) -> tf.Tensor:
    """Compute the least margin of a fooling point: `1e-5 * max_j |z_j|`, or more."""
    safe = _SAFE * largest_logit(logits)
    least = context.least_margin
    return safe if least is None else tf.maximum(safe, least)


def least_margin(context: AttackContext, logits: tf.Tensor) -> tf.Tensor:
    """Compute the margin, `(B,)`, that is more than rounding, from `logits` at `x`."""
    origin = context.origin
    weights = nearest_boundary(context, origin, None, context.input_range).weights
    # Logits may be small sums of large terms, which other batches round otherwise.
    terms = lengths(weights * origin, "l1")
    noise = tf.maximum(_NOISE * terms, getattr(context.logits_fn, "resolution", 0.0))
    return tf.maximum(_SAFE * largest_logit(logits), tf.cast(noise, tf.float32))


def largest_logit(logits: tf.Tensor) -> tf.Tensor:
    """Return the largest magnitude per row among classes that are not ruled out."""
    top = tf.reduce_max(logits, axis=-1, keepdims=True)
    counts = tf.math.is_finite(logits) & (logits >= top - _RULED_OUT)
    sizes = tf.where(counts, tf.abs(logits), tf.zeros_like(logits))
    return tf.reduce_max(sizes, axis=-1)


# Takes points (B, *S); returns bool (B,), they fool, and float32 (B,), the margin.
Judge = Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]
# Aimed at the zero itself, half of the points would land just before the boundary.
_AIM_BEYOND = 0.02


def line_search(judge: Judge, origin: tf.Tensor, x: tf.Tensor, passes: int) -> tf.Tensor:
    """Find the boundary on the segment from the inputs to fooling points."""
    if passes == 0:
        return x
    lower, upper = tf.minimum(origin, x), tf.maximum(origin, x)

    def at(share: tf.Tensor) -> tf.Tensor:
        # Between both to the last digit, so that range and region stay kept.
        return tf.clip_by_value(origin + expand_dims_like(share, x) * (x - origin), lower, upper)

    def body(turn: tf.Tensor, low: tf.Tensor, high: tf.Tensor, below: Any, above: Any) -> Any:
        zero_at = low + (high - low) * tf.clip_by_value(
            tf.math.divide_no_nan(below, below - above), 0.0, 1.0
        )
        aimed = zero_at + _AIM_BEYOND * (high - zero_at)
        share = tf.where(turn % 2 == 0, aimed, (low + high) / 2.0)
        # The first two turns tell the margins at both ends.
        share = tf.where(turn == 0, zero, tf.where(turn == 1, zero + 1.0, share))
        fools, margin = judge(at(share))
        margin = tf.cast(margin, x.dtype)
        return (
            turn + 1,
            tf.where(fools, low, share),
            tf.where(fools, share, high),
            tf.where(fools, below, margin),
            tf.where(fools, margin, above),
        )

    zero = tf.zeros(tf.shape(x)[:1], x.dtype)
    _, _, high, _, _ = tf.while_loop(
        lambda *_: tf.size(zero) > 0,
        body,
        (tf.constant(0), zero, zero + 1.0, zero, zero),
        maximum_iterations=passes + 2,
    )
    # With a share of one, `origin + (x - origin)` need not be `x`.
    return tf.where(expand_dims_like(high < 1.0, x), at(high), x)


# How far beyond the plane to go, as shares of the way to it: from bends to rounding.
_SHARES_BEYOND = (3e-2, 1e-3, 1e-4)


def project_to_linearized_boundary(
    judge: Callable[[tf.Tensor, Closest], Closest], context: AttackContext, known: Closest
) -> Closest:
    """Project the inputs onto the boundary, linearized at fooling points."""
    origin, norm, input_range = context.origin, context.norm, context.input_range

    def body(turn: tf.Tensor, best: Closest) -> Any:
        plane = nearest_boundary(context, best.x, None, input_range)
        gap = value_at(plane, best.x, origin)
        beyond = tf.gather(tf.constant(_SHARES_BEYOND, gap.dtype), turn) * tf.abs(gap)
        target = linear_projection(origin, plane.weights, gap - beyond, input_range, norm)
        return turn + 1, judge(target, best)

    closest: Closest
    _, closest = tf.while_loop(
        lambda turn, best: tf.size(best.distance) > 0,
        body,
        (tf.constant(0), known),
        maximum_iterations=len(_SHARES_BEYOND),
    )
    return closest


@dataclass(frozen=True, kw_only=True)
class MinimumNormAttack(Attack):
    """Search for the fooling point closest to each input.

    `x_adv = argmin ||x' - x||` over the `x'` in `input_range` that fool the model.
    Returns per example the closest that was seen, `x` itself where none was. A method
    implements `approach`; what it found is then moved towards `x`.

    With a finite `epsilon` the question is only whether the ball holds a fooling point: an example
    is left alone as soon as one is known in it, and a point outside is projected onto it. For
    distances leave `epsilon` infinite. `epsilons=[...]` in a call takes one search without limit
    for all radii. Other arguments are those of `Attack`, without `loss`.

    Args:
        epsilon: Radius in input units, >= 0; infinity (in a configuration `None`), the
            default, sets no limit.
        search_passes: Number of forward passes that move a point towards its input in
            the end; 0 returns what the method itself arrives at.

    Example:
        >>> from keras_jsigr.attacks import DeepFool
        >>> DeepFool().get_config()["epsilon"] is None
        True
    """

    unlimited: ClassVar[bool] = True

    epsilon: float | None = field(default=math.inf, kw_only=False)
    loss: LossName = field(default="margin", init=False, repr=False)
    search_passes: int = 10

    def __post_init__(self) -> None:
        if self.epsilon is None:
            self._set("epsilon", math.inf)
        super().__post_init__()
        self._normalize(arguments.count, "search_passes", minimum=0)

    @abstractmethod
    def approach(
        self, context: AttackContext, logits: tf.Tensor, known: Closest
    ) -> tuple[Closest, tf.Tensor]:
        """Return the closest points, and bool `(B,)`: the gradient was finite.

        `logits` are those at the inputs; `known` holds the inputs that fool already.
        """

    def margin(self, logits: tf.Tensor, context: AttackContext) -> tf.Tensor:
        """Return what is positive where a point counts, finite float32 `(B,)`."""
        margin = attack_loss(logits, context.targets, "margin")
        margin = tf.where(has_valid_logits(logits), margin, margin.dtype.max)
        return -margin if self.targeted else margin

    def judge(
        self, context: AttackContext, x: tf.Tensor, known: Closest
    ) -> tuple[Closest, tf.Tensor, tf.Tensor]:
        """Return the closest of `known` and `x`, whether `x` fools, and its margin."""
        seen = context.to_model_input(x)
        logits = tf.cast(context.logits_fn(seen), tf.float32)
        margin = self.margin(logits, context) - safe_margin(logits, context)
        seen, fools = tf.cast(seen, x.dtype), margin > 0
        known = known.or_closer(seen, fools, context.origin, self.norm)
        return known, fools, margin

    def unfinished(self, context: AttackContext, known: Closest) -> tf.Tensor:
        """Tell which examples are still worth searching, bool `(B,)`."""
        epsilon = context.epsilon
        near_enough = (epsilon < known.distance.dtype.max) & (known.distance <= epsilon)
        return (known.distance > 0) & ~near_enough

    def refined(self, context: AttackContext, known: Closest) -> Closest:
        """Move what was found to where the linearized boundary is nearest."""
        if self.search_passes == 0:
            return known
        rows = nonzero_rows(self.unfinished(context, known) & known.found)
        part = context.take(rows)

        def judge(x: tf.Tensor, best: Closest) -> Closest:
            return self.judge(part, x, best)[0]

        near = project_to_linearized_boundary(judge, part, take_rows(known, rows))
        return scatter_rows(near, rows, known)

    def search(self, context: AttackContext) -> tuple[tf.Tensor, tf.Tensor]:
        """Find the closest fooling points of one batch; see `Attack.search`."""
        origin = context.origin
        logits = context.logits(origin)
        if self.access == "white box":  # it takes a gradient
            context = context._replace(least_margin=least_margin(context, logits))
        wrong = self.margin(logits, context) > safe_margin(logits, context)
        known = Closest.none(origin).or_closer(origin, wrong, origin, self.norm)
        closest, finite = self.approach(context, logits, known)
        x = self._moved_back(context, closest).x
        x = within(x, origin, context.epsilon, self.norm, context.input_range)
        return context.to_model_input(x), finite

    def _moved_back(self, context: AttackContext, known: Closest) -> Closest:
        """Search the boundary on the way from the inputs to the points found."""
        rows = nonzero_rows(self.unfinished(context, known) & known.found)
        part, best = context.take(rows), take_rows(known, rows)

        def judge(x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            return self.judge(part, x, best)[1:]

        x = line_search(judge, part.origin, best.x, self.search_passes)
        x = tf.cast(part.to_model_input(tf.ensure_shape(x, best.x.shape)), x.dtype)
        distance = lengths(x - part.origin, self.norm)
        return scatter_rows(Closest(x, distance), rows, known)

    def _run(self, model: Any, x: Any, y: Any, *, epsilons: Any, **given: Any) -> Any:
        """Attack within one radius, or once without limit for all of several."""
        if epsilons is None:
            return run_batches(self, model, x, y, **given)
        if self.levels is not None:  # rounded points cannot be projected onto a ball
            return [run_batches(self.at(e), model, x, y, **given) for e in epsilons]
        limited = [self.at(epsilon).for_model(model) for epsilon in epsilons]
        x_adv = run_batches(self.at(math.inf), model, x, y, **given)
        return [attack._into_ball(x, x_adv) for attack in limited]

    def _into_ball(self, x: Any, x_adv: Any) -> Any:
        """Project points onto the ball, batch by batch."""
        dtype, input_range = working_dtype(x_adv.dtype), self.input_range
        radius = tf.constant(self.epsilon, dtype)

        def project(rows: slice) -> tf.Tensor:
            origin, point = (tf.cast(t[rows], dtype) for t in (x, x_adv))
            near = within(point, origin, radius, self.norm, input_range)
            return round_towards(near, origin, tf.as_dtype(x_adv.dtype))

        parts = parallel_batches(project, len(x_adv), self.batch_size)
        return join_batches(list(parts), x_adv)


def within(
    x: tf.Tensor, origin: tf.Tensor, epsilon: tf.Tensor, norm: str, input_range: Any
) -> tf.Tensor:
    """Project the points that are farther than `epsilon`; leave the others alone."""
    far = lengths(x - origin, norm) > epsilon
    near = BALLS[norm](origin, epsilon, input_range).project(x)
    return where_rows(far, near, x)


def refuse_targeted(attack: MinimumNormAttack) -> None:
    """Check that a method without targets was given none."""
    if attack.targeted:
        raise ValueError(
            f"`{type(attack).__name__}` has no targeted form: got targeted=True, "
            "expected False. Use CarliniWagner to reach a given class."
        )


# Clipped only after the step: within the range the plane may be too far to mean much.
_UNLIMITED = (tf.float32.min, tf.float32.max)
# Added to a step, in widths of the range: else it would never reach the boundary.
_LEAST = 1e-4


@keras.saving.register_keras_serializable(package="keras_jsigr")
@dataclass(frozen=True, kw_only=True)
class DeepFool(MinimumNormAttack):
    """Move onto the nearest linearized class boundary until crossed (arXiv 1511.04599).

    `r_{i+1} = r_i + d_i` with `d_i` the shortest way to the plane of the nearest rival,
    linearized at `clip(x + (1 + overshoot) r_i)`, where the model is asked. A quick
    first estimate of the distance; FAB gets closer. Nothing is random. Other arguments
    are those of `MinimumNormAttack`, without `targeted`.

    Args:
        norm: `"l2"` or `"linf"`.
        steps: Largest number of steps, >= 1.
        candidates: Number of rivals, >= 1: the other classes with the largest logits at
            `x`. A step takes one backward pass for each.
        overshoot: Share of the perturbation that is added to cross the boundary, >= 0.

    Example:
        >>> import numpy as np, keras_jsigr as kj
        >>> kj.attacks.DeepFool()(lambda x: x, np.array([[0.5, 0.75]]), [1]).round(3)
        array([[0.625, 0.625]])
    """

    norm: str = "l2"
    steps: int = 50
    candidates: int = 10
    overshoot: float = 0.02

    def __post_init__(self) -> None:
        super().__post_init__()
        arguments.choice("norm", self.norm, ("l2", "linf"))
        refuse_targeted(self)
        self._normalize(arguments.count, "steps", "candidates")
        self._normalize(arguments.number, "overshoot", minimum=0.0)

    @property
    def passes(self) -> int:
        """Largest number of steps per example."""
        return self.steps

    def approach(
        self, context: AttackContext, logits: tf.Tensor, known: Closest
    ) -> tuple[Closest, tf.Tensor]:
        """Take steps until all are fooled; see `MinimumNormAttack.approach`."""
        origin, (low, high) = context.origin, context.input_range
        rivals = top_other_classes(logits, context.targets, self.candidates)

        def beyond(foot: tf.Tensor, origin: tf.Tensor) -> tf.Tensor:
            point = origin + (1.0 + self.overshoot) * (foot - origin)
            return tf.clip_by_value(point, low, high)

        def one_step(on_plane: tf.Tensor, best: Closest, finite: tf.Tensor) -> Any:
            rows = nonzero_rows(~best.found)
            part, near = context.take(rows), take_rows(best, rows)
            foot, against = take_rows((on_plane, rivals), rows)
            point = beyond(foot, part.origin)
            plane = nearest_boundary(part, point, against, _UNLIMITED)
            way = -foot + linear_projection(foot, plane.weights, plane.gap, _UNLIMITED, self.norm)
            least = _LEAST * (high - low)
            extra = tf.math.divide_no_nan(least, lengths(way, self.norm))
            foot += (1.0 + expand_dims_like(extra, way)) * way
            near, _, _ = self.judge(part, beyond(foot, part.origin), near)
            healthy = plane.finite & tf.gather(finite, rows)
            return scatter_rows((foot, near, healthy), rows, (on_plane, best, finite))

        _, best, finite = tf.while_loop(
            lambda on_plane, best, finite: tf.reduce_any(~best.found),
            one_step,
            (origin, known, tf.ones_like(known.found)),
            maximum_iterations=self.steps,
        )
        return self.refined(context, best), finite
