"""Gradient steps with momentum that shorten themselves where they do not help."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple

import tensorflow as tf

from keras_jsigr.attacks.balls.ball import Ball
from keras_jsigr.attacks.gradient.best import Best
from keras_jsigr.attacks.search.iterate import Iterate
from keras_jsigr.attacks.search.rows import like, pick

# The weight of the new step against the last one, and the share of steps that have to
# climb for the step size to be kept.
_NEW, _CLIMBING = 0.75, 0.75
# The spans between checkpoints in hundredths of all steps: the first, by how much each
# is shorter than the one before, and the shortest.
_FIRST, _SHORTER, _SHORTEST = 22, 3, 6


class MomentumState(NamedTuple):
    """Hold what the next step needs; every tensor has one row per example.

    Attributes:
        best: The best iterate.
        previous: Float `(B, *S)`, the iterate before.
        step_size: Float `(B,)`, in input units.
        value: Float32 `(B,)`, the objective at `previous`.
        climbs: Float32 `(B,)`, steps since the last checkpoint that went up.
        best_value: Float32 `(B,)`, the largest objective at the last checkpoint.
        halved: Bool `(B,)`: the step size was halved at the last checkpoint.
    """

    best: Best
    previous: tf.Tensor
    step_size: tf.Tensor
    value: tf.Tensor
    climbs: tf.Tensor
    best_value: tf.Tensor
    halved: tf.Tensor


def checkpoints(steps: int) -> list[int]:
    """Return the steps before which the step size is reconsidered.

    `w_j = ceil(p_j * steps)` with `p_0 = 0`, `p_1 = 0.22` and
    `p_{j+1} = p_j + max(p_j - p_{j-1} - 0.03, 0.06)`.

    Args:
        steps: The number of steps.

    Returns:
        Different, ascending, from 0 on, below `steps`.

    Reference:
        arXiv 2003.01690, section 4.

    Example:
        >>> from keras_jsigr.attacks.gradient.momentum_ascent import checkpoints
        >>> checkpoints(100)
        [0, 22, 41, 57, 70, 80, 87, 93, 99]
    """
    found, place, span = [0], _FIRST, _FIRST
    while (step := -(-place * steps // 100)) < steps:
        if step > found[-1]:
            found.append(step)
        span = max(span - _SHORTER, _SHORTEST)
        place += span
    return found


def start_momentum(x: tf.Tensor, step_size: Any) -> MomentumState:
    """Return the state of a search from `x`.

    Args:
        x: Float `(B, *S)`.
        step_size: The first step size, in input units.

    Returns:
        The state.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.attacks.gradient.momentum_ascent import start_momentum
        >>> start_momentum(tf.zeros((2, 3)), 0.5).step_size.numpy().tolist()
        [0.5, 0.5]
    """
    each = tf.zeros(tf.shape(x)[:1])
    best = Best.none(x)
    sizes = tf.cast(each, x.dtype) + step_size
    return MomentumState(
        best, x, sizes, each, each, best.value, tf.zeros_like(each, tf.bool)
    )


def momentum_step(
    ball: Ball, iterate: Iterate, value: tf.Tensor, steps: int
) -> tuple[tf.Tensor, MomentumState]:
    """Take a step along the gradient and along the last step.

    `z = project(x_t + step_size * steepest(g))` and
    `x_{t+1} = project(x_t + 0.75 * (z - x_t) + 0.25 * (x_t - x_{t-1}))`. At a
    checkpoint the step size is halved, and the search goes on from the best iterate,
    where less than 0.75 of the steps since the last one went up, or where the step size
    was kept there and no better iterate was found since.

    Args:
        ball: Where to search.
        iterate: Where the step starts, with a `MomentumState`.
        value: Float32 `(B,)`, the objective there.
        steps: The number of steps in all.

    Returns:
        The next iterate and state.

    Reference:
        arXiv 2003.01690, algorithm 1.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.attacks.balls.ball import LinfBall
        >>> from keras_jsigr.attacks.search.iterate import Iterate
        >>> from keras_jsigr.attacks.gradient.momentum_ascent import (
        ...     momentum_step,
        ...     start_momentum,
        ... )
        >>> x, zero = tf.constant([[0.5]]), tf.constant(0)
        >>> state = start_momentum(x, 0.5)
        >>> ball = LinfBall(x, 0.25, (0.0, 1.0))
        >>> iterate = Iterate(x, tf.ones((1, 1)), None, None, state, zero)
        >>> momentum_step(ball, iterate, tf.zeros(1), 10)[0].numpy().tolist()
        [[0.75]]
    """
    before: MomentumState = iterate.state
    state, halve = _review(iterate, value, steps)
    x = pick(halve, state.best.x, iterate.x)
    gradient = pick(halve, state.best.gradient, iterate.gradient)
    move = like(state.step_size, x) * ball.steepest(gradient)
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
