"""Auto-PGD: gradient steps whose size is found, towards any or towards each class."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, ClassVar, NamedTuple, cast

import keras
import tensorflow as tf

from keras_jsigr.attacks.base import AttackContext
from keras_jsigr.attacks.gradient_attack import (
    BestPoint,
    GradientAttack,
    StepState,
    expand_dims_like,
    keep_stronger,
    nonzero_rows,
    run_restarts,
    scatter_rows,
    take_rows,
    where_rows,
)
from keras_jsigr.attacks.losses import LossName, dlr_loss, misclassified, targeted_dlr_loss
from keras_jsigr.attacks.norms import L1Ball, sparse_sign
from keras_jsigr.core import arguments
from keras_jsigr.core.random import fold_in


class Best(NamedTuple):
    """Hold where the objective was largest, to go on from there."""

    x: tf.Tensor
    gradient: tf.Tensor
    value: tf.Tensor

    @classmethod
    def none(cls, x: tf.Tensor) -> Best:
        """Return the state before the search from `x`: the least value."""
        return cls(x, tf.zeros_like(x), tf.fill(tf.shape(x)[:1], tf.float32.min))

    def or_better(self, now: StepState, value: tf.Tensor) -> Best:
        """Return the better of this and another iterate; of equals the earlier."""
        new = Best(now.x, now.gradient, value)
        return where_rows(value > self.value, new, self)


# Weight of the new step against the last; share of steps that climb to keep the size.
_STEP_WEIGHT, _CLIMBING = 0.75, 0.75
# Spans between checkpoints, in hundredths of the steps: first, decrement, shortest.
_FIRST_SPAN, _SPAN_DECREASE, _SHORTEST_SPAN = 22, 3, 6


class MomentumState(NamedTuple):
    """Hold what the next step needs; every tensor has one row per example."""

    best: Best
    previous: tf.Tensor
    step_size: tf.Tensor
    value: tf.Tensor
    climbs: tf.Tensor
    best_value: tf.Tensor
    halved: tf.Tensor


def checkpoints(steps: int) -> list[int]:
    """Return the steps before which the step size is reconsidered."""
    found, place, span = [0], _FIRST_SPAN, _FIRST_SPAN
    while (step := -(-place * steps // 100)) < steps:
        if step > found[-1]:
            found.append(step)
        span = max(span - _SPAN_DECREASE, _SHORTEST_SPAN)
        place += span
    return found


def start_momentum(x: tf.Tensor, step_size: Any) -> MomentumState:
    """Return the state of a search from `x`."""
    each = tf.zeros(tf.shape(x)[:1])
    best = Best.none(x)
    sizes = tf.cast(each, x.dtype) + step_size
    return MomentumState(best, x, sizes, each, each, best.value, tf.zeros_like(each, tf.bool))


def momentum_step(now: StepState, value: tf.Tensor, steps: int) -> tuple[tf.Tensor, MomentumState]:
    """Take a step along the gradient and along the last step."""
    before: MomentumState = now.state
    state, halve = _review(now, value, steps)
    x = where_rows(halve, state.best.x, now.x)
    gradient = where_rows(halve, state.best.gradient, now.gradient)
    move = expand_dims_like(state.step_size, x) * now.ball.steepest(gradient)
    target = now.ball.project(x + move)
    new = tf.cast(tf.where(now.step == 0, 1.0, _STEP_WEIGHT), x.dtype)
    moved = x + new * (target - x) + (1.0 - new) * (x - before.previous)
    return now.ball.project(moved), state._replace(previous=x)


def _review(now: StepState, value: tf.Tensor, steps: int) -> tuple[MomentumState, tf.Tensor]:
    """Note the iterate; tell where to go back to the best with half the step size."""
    state, start = now.state, now.step == 0
    best = state.best.or_better(now, value)
    climbs = state.climbs + tf.cast((value > state.value) & ~start, tf.float32)
    span = tf.constant(_spans(steps))[now.step]
    slow = climbs < _CLIMBING * tf.cast(span, tf.float32)
    stuck = ~state.halved & (best.value <= state.best_value)
    halve = (span > 0) & (slow | stuck)
    # Step 0 ends no span, but the next one is compared with it.
    mark = start | (span > 0)
    state = MomentumState(
        best,
        state.previous,
        tf.where(halve, state.step_size / 2.0, state.step_size),
        # Of the point that the next step starts from.
        tf.where(halve, best.value, value),
        tf.where(mark, tf.zeros_like(climbs), climbs),
        tf.where(mark, best.value, state.best_value),
        tf.where(mark, halve, state.halved),
    )
    return state, halve


def _spans(steps: int) -> list[int]:
    """Return per step the length of the span that ends there, zero where none does."""
    marks = checkpoints(steps)
    lengths = {b: b - a for a, b in pairwise(marks)}
    return [lengths.get(step, 0) for step in range(steps)]


# L1: share of components first moved; steps between checkpoints; what is sparser.
_SHARE, _SPAN, _SPARSER = 0.2, 0.04, 0.95
# Divisors of the number of components and the step size; how far the latter falls.
_FEWER_COMPONENTS, _SHORTER_STEP, _SHORTEST_STEP = 1.5, 1.5, 10.0


class SparseState(NamedTuple):
    """Hold what the next step needs; every tensor has one row per example."""

    best: Best
    step_size: tf.Tensor
    count: tf.Tensor
    changed: tf.Tensor


def start_sparse(x: tf.Tensor, step_size: Any) -> SparseState:
    """Return the state of a search from `x`."""
    each = tf.zeros(tf.shape(x)[:1])
    sizes = tf.cast(each, x.dtype) + step_size
    return SparseState(Best.none(x), sizes, each, each)


def sparse_step(
    now: StepState, value: tf.Tensor, steps: int, step_size: Any
) -> tuple[tf.Tensor, SparseState]:
    """Take a step along the signs of the largest components of the gradient."""
    state: SparseState = now.state
    best = state.best.or_better(now, value)
    span = max(int(_SPAN * steps), 1)
    start = now.step == 0
    check = ~start & (now.step % span == 0)

    ball = cast(L1Ball, now.ball)
    features = tf.cast(ball.dimensions, tf.float32)
    axes = list(range(1, now.x.shape.rank))
    changed = tf.math.count_nonzero(best.x - ball.origin, axes, dtype=tf.float32)
    sparser = check & (changed < _SPARSER * state.changed)
    shorter = tf.maximum(state.step_size / _SHORTER_STEP, step_size / _SHORTEST_STEP)
    length = tf.where(check, shorter, state.step_size)
    fewer = tf.where(check, changed / _FEWER_COMPONENTS, state.count)
    state = SparseState(
        best,
        tf.where(sparser, tf.zeros_like(length) + step_size, length),
        tf.where(start, _SHARE * features, fewer),
        tf.where(start, features, tf.where(check, changed, state.changed)),
    )
    x = where_rows(sparser, best.x, now.x)
    gradient = where_rows(sparser, best.gradient, now.gradient)
    step = expand_dims_like(state.step_size, x) * sparse_sign(gradient, state.count)
    return ball.project(x + step), state


# ---- the attacks

_NAMES = {"cross_entropy": "APGD-CE", "dlr": "APGD-DLR", "margin": "APGD-margin"}
# L1: factors of the wider balls' radius, share of steps in each, fewest steps to part.
_WIDER, _EARLY, _ENOUGH = (3.0, 2.0), 0.3, 10


@keras.saving.register_keras_serializable(package="keras_jsigr")
@dataclass(frozen=True, kw_only=True)
class APGD(GradientAttack):
    """Take steps with momentum whose size nobody has to choose (arXiv 2003.01690).

    Steps of twice the radius first; where they do not climb any more, steps of half the size from
    the best point so far, per example. Under `norm="l1"` (arXiv 2103.01208), steps along as few
    components as the best perturbation so far needs, in balls of three times and twice the radius
    (0.3 of the steps each), then in the ball itself. Other arguments are those of `GradientAttack`.

    Args:
        step_size: The first, in input units; default `2 * epsilon`, under `"l1"` `epsilon`.
        loss: `"cross_entropy"` (APGD-CE), `"dlr"` (APGD-DLR) or `"margin"`.

    Example:
        >>> import numpy as np, keras_jsigr as kj
        >>> kj.attacks.APGD(0.25)(lambda x: x, np.array([[0.5, 0.75]]), [1]).tolist()
        [[0.75, 0.5]]
    """

    keep_best: ClassVar[bool] = True

    steps: int = 100
    random_start: bool = True

    @property
    def name(self) -> str:
        """What the attack is called in reports."""
        return self.label or _NAMES[self.loss]

    def default_step_size(self, epsilon: Any) -> Any:
        """Return `2 * epsilon`, under the L1 norm `epsilon`."""
        return epsilon if self.norm == "l1" else 2.0 * epsilon

    def strength(self, logits: tf.Tensor, context: AttackContext) -> tf.Tensor:
        """Return the objective, which confident models do not saturate."""
        return self.objective(logits, context)

    def start_state(self, context: AttackContext, x: tf.Tensor) -> Any:
        """Return the state of the norm's method."""
        start = start_sparse if self.norm == "l1" else start_momentum
        return start(x, self.step_length(context.epsilon))

    def gradient(
        self, context: AttackContext, x: tf.Tensor, *, state: Any, seed: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor | None]:
        """Return the gradient, and always the logits at `x`, which steps go by."""
        gradient, logits = super().gradient(context, x, state=state, seed=seed)
        return gradient, context.logits(x) if logits is None else logits

    def update(self, context: AttackContext, now: StepState) -> tuple[tf.Tensor, Any]:
        """Return the next point and state."""
        value = self.objective(now.logits, context)
        if self.norm == "l1":
            first = self.step_length(context.epsilon)
            return sparse_step(now, value, self.steps, first)
        return momentum_step(now, value, self.steps)

    def search(self, context: AttackContext) -> tuple[tf.Tensor, tf.Tensor]:
        """Attack one batch and keep the strongest point; see `Attack.search`."""
        found, finite = self.all_phases(context)
        return context.to_model_input(found.x), finite

    def all_phases(self, context: AttackContext) -> tuple[BestPoint, tf.Tensor]:
        """Take all steps, under the L1 norm in balls that get smaller."""
        early = math.ceil(_EARLY * self.steps)
        if self.norm != "l1" or self.steps < _ENOUGH:
            return run_restarts(self, context)
        last = self.with_settings(steps=self.steps - early * len(_WIDER))
        one = self.with_settings(steps=early, restarts=1, random_start=False, early_stop=False)

        def start(part: AttackContext, seed: tf.Tensor) -> tf.Tensor:
            x = self.start_point(part, seed)
            for number, factor in enumerate(_WIDER):
                wide = part._replace(epsilon=factor * part.epsilon, seed=fold_in(seed, number + 1))
                x = run_restarts(one, wide, start=_at(wide.ball.project(x)))[0].x
            return part.ball.project(x)

        return run_restarts(last, context, start=start)


def _at(x: tf.Tensor) -> Any:
    return lambda context, seed: x


@keras.saving.register_keras_serializable(package="keras_jsigr")
@keras.saving.register_keras_serializable(package="keras_jsigr", name="APGDT")
@dataclass(frozen=True, kw_only=True)
class TargetedAPGD(APGD):
    """Run Auto-PGD towards each of the most likely wrong classes until one succeeds.

    Per example and wrong class `t`, in the order of their logits at `x`, the difference
    of logits ratio of `t` and the true class is driven up. Only the examples that are
    still right go on; any wrong class is a success (arXiv 2003.01690, section 5). Other
    arguments are those of `APGD`, without `loss` and `targeted`.

    Args:
        steps: Number of gradient steps per class, >= 1.
        target_classes: Number of wrong classes to try, >= 1; all if there are fewer.
        early_stop: False takes all steps towards a class, also after a success.

    Example:
        >>> import numpy as np, keras_jsigr as kj
        >>> x = np.array([[0.75, 0.5, 0.0]])
        >>> kj.attacks.TargetedAPGD(0.25)(lambda x: x, x, [0])[0, :2].tolist()
        [0.5, 0.75]
    """

    label: ClassVar[str] = "APGD-T"

    target_classes: int = 9
    # The loss and what `y` means are what the method is.
    loss: LossName = field(default="dlr", init=False, repr=False)
    targeted: bool = field(default=False, repr=False)

    def __post_init__(self) -> None:
        if self.targeted:
            raise ValueError(
                "`TargetedAPGD` takes the class to leave and picks the goals itself: "
                "got targeted=True, expected False. Use APGD(targeted=True, "
                "loss='margin') to reach a given class."
            )
        super().__post_init__()
        self._normalize(arguments.count, "target_classes")

    @property
    def passes(self) -> int:
        """Number of gradients per example that no class succeeds for."""
        return super().passes * self.target_classes

    def objective(self, logits: tf.Tensor, context: AttackContext) -> tf.Tensor:
        """Return the loss to climb: towards the goal, if there is one."""
        if context.goals is None:
            return dlr_loss(logits, context.targets)
        return targeted_dlr_loss(logits, context.targets, context.goals)

    def strength(self, logits: tf.Tensor, context: AttackContext) -> tf.Tensor:
        """Return the untargeted ratio, by which all goals compare."""
        return dlr_loss(logits, context.targets)

    def search(self, context: AttackContext) -> tuple[tf.Tensor, tf.Tensor]:
        """Attack one batch class by class; see `Attack.search`."""
        logits = context.logits(context.origin)
        classes = logits.shape[-1]
        best = BestPoint(
            context.origin, misclassified(logits, context.targets), self.strength(logits, context)
        )
        # The true class ranks last, and the last rank is never tried.
        true = tf.one_hot(tf.argmax(context.targets, axis=-1), classes, True, False)
        wrong = tf.where(true, tf.fill(tf.shape(logits), logits.dtype.min), logits)
        ranks = min(self.target_classes, classes - 1)
        ranking = tf.math.top_k(wrong, ranks).indices

        def towards(rank: tf.Tensor, best: BestPoint, finite: tf.Tensor) -> Any:
            rows = nonzero_rows(~best.success)
            goals = tf.one_hot(tf.gather(ranking[:, rank], rows), classes)
            part = context.take(rows)
            new, healthy = self.all_phases(
                part._replace(goals=goals, seed=fold_in(context.seed, rank))
            )
            new = keep_stronger(new, take_rows(best, rows))
            healthy &= tf.gather(finite, rows)
            best, finite = scatter_rows((new, healthy), rows, (best, finite))
            return rank + 1, best, finite

        start = (tf.constant(0), best, tf.ones_like(best.success))
        _, best, finite = tf.while_loop(
            lambda rank, best, _: (rank < ranks) & ~tf.reduce_all(best.success),
            towards,
            start,
            maximum_iterations=ranks,
        )
        return context.to_model_input(best.x), finite
