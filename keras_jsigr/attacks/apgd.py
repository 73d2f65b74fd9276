"""The best iterate so far, per example, and the gradient there."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, ClassVar, NamedTuple, Self, cast

import keras
import tensorflow as tf

from keras_jsigr.attacks.base import AttackBatch
from keras_jsigr.attacks.gradient_attack import (
    BestPoint,
    GradientAttack,
    Iterate,
    ascend,
    expand_dims_like,
    scatter_rows,
    stronger,
    where_rows,
)
from keras_jsigr.attacks.losses import (
    LossName,
    dlr_loss,
    misclassified,
    targeted_dlr_loss,
)
from keras_jsigr.attacks.norms import Ball, L1Ball, sparse_sign
from keras_jsigr.core import arguments
from keras_jsigr.core.logits import LogitsFn
from keras_jsigr.core.random import fold_in


class Best(NamedTuple):
    """Hold where the objective was largest, to go on from there."""

    x: tf.Tensor
    gradient: tf.Tensor
    value: tf.Tensor

    @classmethod
    def none(cls, x: tf.Tensor) -> Best:
        """Return what every iterate is better than, for a search from `x`."""
        lowest = tf.fill(tf.shape(x)[:1], float("-inf"))
        return cls(x, tf.zeros_like(x), lowest)

    def seen(self, x: tf.Tensor, gradient: tf.Tensor, value: tf.Tensor) -> Best:
        """Return the better of this and another iterate; of equals the earlier."""
        better = value > self.value
        return Best(
            where_rows(better, x, self.x),
            where_rows(better, gradient, self.gradient),
            tf.where(better, value, self.value),
        )


# The weight of the new step against the last one, and the share of steps that have to
# climb for the step size to be kept.
_NEW, _CLIMBING = 0.75, 0.75


# The spans between checkpoints in hundredths of all steps: the first, by how much each
# is shorter than the one before, and the shortest.
_FIRST, _MOMENTUM_ASCENT_SHORTER, _MOMENTUM_ASCENT_SHORTEST = 22, 3, 6


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
    found, place, span = [0], _FIRST, _FIRST
    while (step := -(-place * steps // 100)) < steps:
        if step > found[-1]:
            found.append(step)
        span = max(span - _MOMENTUM_ASCENT_SHORTER, _MOMENTUM_ASCENT_SHORTEST)
        place += span
    return found


def start_momentum(x: tf.Tensor, step_size: Any) -> MomentumState:
    """Return the state of a search from `x`."""
    each = tf.zeros(tf.shape(x)[:1])
    best = Best.none(x)
    sizes = tf.cast(each, x.dtype) + step_size
    return MomentumState(
        best, x, sizes, each, each, best.value, tf.zeros_like(each, tf.bool)
    )


def momentum_step(
    ball: Ball, iterate: Iterate, value: tf.Tensor, steps: int
) -> tuple[tf.Tensor, MomentumState]:
    """Take a step along the gradient and along the last step."""
    before: MomentumState = iterate.state
    state, halve = _review(iterate, value, steps)
    x = where_rows(halve, state.best.x, iterate.x)
    gradient = where_rows(halve, state.best.gradient, iterate.gradient)
    move = expand_dims_like(state.step_size, x) * ball.steepest(gradient)
    target = ball.project(x + move)
    # Nothing went before the first step.
    new = tf.cast(tf.where(iterate.step == 0, 1.0, _NEW), x.dtype)
    moved = x + new * (target - x) + (1.0 - new) * (x - before.previous)
    return ball.project(moved), state._replace(previous=x)


def _review(
    iterate: Iterate, value: tf.Tensor, steps: int
) -> tuple[MomentumState, tf.Tensor]:
    """Note the iterate; tell where to go back to the best with half the step size."""
    state, start = iterate.state, iterate.step == 0
    best = state.best.seen(iterate.x, iterate.gradient, value)
    climbs = state.climbs + tf.cast((value > state.value) & ~start, tf.float32)
    span = tf.constant(_spans(steps))[iterate.step]
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


# The share of components that the first steps move, the part of the steps between
# checkpoints, and what counts as a sparser perturbation.
_SHARE, _SPAN, _SPARSER = 0.2, 0.04, 0.95


# What the number of components and the step size are divided by, and how far the step
# size may fall.
_FEWER, _SPARSE_ASCENT_SHORTER, _SPARSE_ASCENT_SHORTEST = 1.5, 1.5, 10.0


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
    ball: Ball, iterate: Iterate, value: tf.Tensor, steps: int, step_size: Any
) -> tuple[tf.Tensor, SparseState]:
    """Take a step along the signs of the largest components of the gradient."""
    state: SparseState = iterate.state
    best = state.best.seen(iterate.x, iterate.gradient, value)
    span = max(int(_SPAN * steps), 1)
    start = iterate.step == 0
    check = ~start & (iterate.step % span == 0)

    features = tf.cast(cast(L1Ball, ball).dimensions, tf.float32)
    axes = list(range(1, iterate.x.shape.rank))
    changed = tf.math.count_nonzero(best.x - ball.origin, axes, dtype=tf.float32)
    sparser = check & (changed < _SPARSER * state.changed)
    shorter = tf.maximum(
        state.step_size / _SPARSE_ASCENT_SHORTER, step_size / _SPARSE_ASCENT_SHORTEST
    )
    length = tf.where(check, shorter, state.step_size)
    state = SparseState(
        best,
        tf.where(sparser, tf.zeros_like(length) + step_size, length),
        tf.where(
            start, _SHARE * features, tf.where(check, changed / _FEWER, state.count)
        ),
        tf.where(start, features, tf.where(check, changed, state.changed)),
    )
    x = where_rows(sparser, best.x, iterate.x)
    gradient = where_rows(sparser, best.gradient, iterate.gradient)
    step = expand_dims_like(state.step_size, x) * sparse_sign(gradient, state.count)
    return ball.project(x + step), state


_NAMES = {"cross_entropy": "APGD-CE", "dlr": "APGD-DLR", "margin": "APGD-margin"}


# Under the L1 norm: factors of the radius of the wider balls, the part of the steps in
# each, and the fewest steps that are worth parting.
_WIDER, _EARLY, _ENOUGH = (3.0, 2.0), 0.3, 10


@keras.saving.register_keras_serializable(package="keras_jsigr")
@dataclass(frozen=True, kw_only=True)
class APGD(GradientAttack):
    """Take gradient steps with momentum whose size nobody has to choose.

    Steps of twice the radius first; where they do not climb any more, steps of half the
    size from the best point so far, per example (see `momentum_step`). Under
    `norm="l1"`, steps along few components, as many as the best perturbation so far
    needs (see `sparse_step`), from the best point of balls of three and of two times
    the radius, which take 0.3 of the steps each.

    Args:
        epsilon: Radius in input units, >= 0.
        steps: Number of gradient steps, >= 1.
        norm: `"linf"`, `"l2"` or `"l1"`.
        input_range: `(low, high)` of valid inputs.
        loss: `"cross_entropy"` (APGD-CE), `"dlr"` (APGD-DLR) or `"margin"`.
        targeted: Whether `y` is the class to reach.
        step_size: The first step size, in input units; default `2 * epsilon`, under
            `"l1"` `epsilon`.
        random_start: Whether to start at a random point of the ball.
        restarts: Number of random starts; per example the strongest is kept.
        early_stop: Whether to leave an example alone once it is misclassified.
        batch_size: Number of examples worked on at once.
        seed: Of the random starts.
        verbose: 1 shows a progress bar, 0 none, `"auto"` one for long runs.

    Raises:
        TypeError: If a setting has the wrong type.
        ValueError: If a setting is out of range.

    Reference:
        arXiv 2003.01690; arXiv 2103.01208 (L1).

    Example:
        >>> import numpy as np
        >>> from keras_jsigr.attacks.apgd import APGD
        >>> x = np.array([[0.5, 0.75]], "float32")
        >>> APGD(epsilon=0.25, steps=10)(lambda x: x, x, [1]).tolist()
        [[0.75, 0.5]]
    """

    keep_best: ClassVar[bool] = True
    # What a search in wider balls comes before: factor of the radius, and steps.
    _wider: ClassVar[tuple[tuple[float, int], ...]] = ()
    _start: ClassVar[tf.Tensor | None] = None

    steps: int = 100
    random_start: bool = True

    @property
    def name(self) -> str:
        """What the attack is called in reports."""
        return _NAMES[self.loss]

    def default_step_size(self) -> float:
        """Return `2 * epsilon`, under the L1 norm `epsilon`."""
        return self.epsilon if self.norm == "l1" else 2.0 * self.epsilon

    def strength(self, logits: tf.Tensor, problem: AttackBatch) -> tf.Tensor:
        """Return the objective, which confident models do not saturate."""
        return self.objective(logits, problem)

    def last_phase(self) -> Self:
        """Return the attack whose search starts from wider balls, if the norm asks."""
        early = math.ceil(_EARLY * self.steps)
        if self.norm != "l1" or self.steps < _ENOUGH:
            return self
        phases = tuple((factor, early) for factor in _WIDER)
        return self._changed(_wider=phases, steps=self.steps - early * len(_WIDER))

    def start_point(
        self, logits_fn: LogitsFn, problem: AttackBatch, ball: Ball, seed: tf.Tensor
    ) -> tf.Tensor:
        """Return where the search starts: if asked, at the best of the wider balls."""
        if self._start is not None:
            return ball.project(self._start)
        x = super().start_point(logits_fn, problem, ball, seed)
        for number, (factor, steps) in enumerate(self._wider):
            wide = self._changed(
                epsilon=factor * self.epsilon,
                steps=steps,
                restarts=1,
                random_start=False,
                early_stop=False,
                _start=x,
                _wider=(),
            )
            seed_now = fold_in(seed, number + 1)
            x = ascend(wide, logits_fn, problem, seed_now, remember=True)[0].x
        return ball.project(x)

    def start_state(self, x: tf.Tensor) -> Any:
        """Return the state of the norm's method."""
        start = start_sparse if self.norm == "l1" else start_momentum
        return start(x, self.step_length)

    def gradient(
        self,
        logits_fn: LogitsFn,
        x: tf.Tensor,
        problem: AttackBatch,
        *,
        state: Any,
        seed: tf.Tensor,
    ) -> tuple[tf.Tensor, tf.Tensor | None]:
        """Return the gradient, and always the logits at `x`, which steps go by."""
        gradient, logits = super().gradient(
            logits_fn, x, problem, state=state, seed=seed
        )
        if logits is None:
            logits = problem.logits(logits_fn, x)
        return gradient, logits

    def update(self, ball: Ball, iterate: Iterate) -> tuple[tf.Tensor, Any]:
        """Return the next point and state."""
        value = self.objective(iterate.logits, iterate.problem)
        if self.norm == "l1":
            return sparse_step(ball, iterate, value, self.steps, self.step_length)
        return momentum_step(ball, iterate, value, self.steps)

    def search(
        self, logits_fn: LogitsFn, problem: AttackBatch, seed: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Attack one batch and keep the strongest point; see `Attack.search`."""
        last = self.last_phase()
        found, finite = ascend(last, logits_fn, problem, seed, remember=True)
        return problem.see(found.x), finite

    def _changed(self, **settings: Any) -> Self:
        # Not a `replace`, which would refuse the tensor that the radius is inside.
        other = copy.copy(self)
        for name, value in settings.items():
            other._set(name, value)
        return other


@keras.saving.register_keras_serializable(package="keras_jsigr")
@dataclass(frozen=True, kw_only=True)
class APGDT(APGD):
    """Run Auto-PGD towards each of the most likely wrong classes until one succeeds.

    Per example and wrong class `t`, in the order of their logits at `x`, the difference
    of logits ratio of `t` and the true class is driven up. Only the examples that are
    still right go on to the next class. Any wrong class counts as a success.

    Args:
        epsilon: Radius in input units, >= 0.
        steps: Number of gradient steps per class, >= 1.
        target_classes: Number of wrong classes to try, >= 1; all of them if there are
            fewer.
        norm: `"linf"`, `"l2"` or `"l1"`.
        input_range: `(low, high)` of valid inputs.
        step_size: The first step size, in input units; see `APGD`.
        random_start: Whether to start at a random point of the ball.
        restarts: Number of random starts per class.
        early_stop: Whether to leave an example alone once it is misclassified; without
            it, the steps towards that class are all taken.
        batch_size: Number of examples worked on at once.
        seed: Of the random starts.
        verbose: 1 shows a progress bar, 0 none, `"auto"` one for long runs.

    Raises:
        TypeError: If a setting has the wrong type.
        ValueError: If a setting is out of range.

    Reference:
        arXiv 2003.01690, section 5.

    Example:
        >>> import numpy as np
        >>> from keras_jsigr.attacks.apgd import APGDT
        >>> x = np.array([[0.75, 0.5, 0.0]], "float32")
        >>> APGDT(epsilon=0.25, steps=10)(lambda x: x, x, [0])[0, :2].tolist()
        [0.5, 0.75]
    """

    target_classes: int = 9
    # The loss and what `y` means are what the method is.
    loss: LossName = field(default="dlr", init=False, repr=False)
    targeted: bool = field(default=False, init=False, repr=False)

    def __post_init__(self) -> None:
        """Check the settings and bring them to their plain Python types."""
        super().__post_init__()
        count = arguments.count("target_classes", self.target_classes)
        self._set("target_classes", count)

    @property
    def name(self) -> str:
        """What the attack is called in reports."""
        return "APGD-T"

    @property
    def passes(self) -> int:
        """Number of gradients per example that no class succeeds for."""
        return super().passes * self.target_classes

    def objective(self, logits: tf.Tensor, problem: AttackBatch) -> tf.Tensor:
        """Return the loss to climb: towards the goal, if there is one."""
        if problem.goals is None:
            return dlr_loss(logits, problem.targets)
        return targeted_dlr_loss(logits, problem.targets, problem.goals)

    def strength(self, logits: tf.Tensor, problem: AttackBatch) -> tf.Tensor:
        """Return the untargeted ratio, by which all goals compare."""
        return dlr_loss(logits, problem.targets)

    def search(
        self, logits_fn: LogitsFn, problem: AttackBatch, seed: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Attack one batch class by class; see `Attack.search`."""
        logits = problem.logits(logits_fn, problem.origin)
        classes = logits.shape[-1]
        best = BestPoint(
            problem.origin,
            misclassified(logits, problem.targets),
            self.strength(logits, problem),
        )
        # The true class ranks last, and the last rank is never tried.
        true = tf.one_hot(tf.argmax(problem.targets, axis=-1), classes, True, False)
        wrong = tf.where(true, tf.fill(tf.shape(logits), logits.dtype.min), logits)
        ranks = min(self.target_classes, classes - 1)
        ranking = tf.math.top_k(wrong, ranks).indices
        last = self.last_phase()

        def towards(rank: tf.Tensor, best: BestPoint, finite: tf.Tensor) -> Any:
            rows = tf.cast(tf.where(~best.success)[:, 0], tf.int32)
            goals = tf.one_hot(tf.gather(ranking[:, rank], rows), classes)
            part = problem.take(rows)._replace(goals=goals)
            new, healthy = ascend(
                last, logits_fn, part, fold_in(seed, rank), remember=True
            )
            finite = tf.tensor_scatter_nd_update(
                finite, rows[:, None], healthy & tf.gather(finite, rows)
            )
            best = scatter_rows(stronger(new, best.take(rows)), rows, best)
            return rank + 1, best, finite

        start = (tf.constant(0), best, tf.ones_like(best.success))
        _, best, finite = tf.while_loop(
            lambda rank, best, _: (rank < ranks) & ~tf.reduce_all(best.success),
            towards,
            start,
            maximum_iterations=ranks,
        )
        return problem.see(best.x), finite
