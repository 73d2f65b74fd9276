"""Gradient steps that move few components, as many as the best perturbation needs."""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import tensorflow as tf

from keras_jsigr.attacks.balls.ball import Ball
from keras_jsigr.attacks.balls.l1_ball import L1Ball, sparse_sign
from keras_jsigr.attacks.gradient.best import Best
from keras_jsigr.attacks.search.iterate import Iterate
from keras_jsigr.attacks.search.rows import like, pick

# The share of components that the first steps move, the part of the steps between
# checkpoints, and what counts as a sparser perturbation.
_SHARE, _SPAN, _SPARSER = 0.2, 0.04, 0.95
# What the number of components and the step size are divided by, and how far the step
# size may fall.
_FEWER, _SHORTER, _SHORTEST = 1.5, 1.5, 10.0


class SparseState(NamedTuple):
    """Hold what the next step needs; every tensor has one row per example.

    Attributes:
        best: The best iterate.
        step_size: Float `(B,)`, in input units.
        count: Float32 `(B,)`, how many components a step moves.
        changed: Float32 `(B,)`, how many components the best perturbation changed at
            the last checkpoint.
    """

    best: Best
    step_size: tf.Tensor
    count: tf.Tensor
    changed: tf.Tensor


def start_sparse(x: tf.Tensor, step_size: Any) -> SparseState:
    """Return the state of a search from `x`.

    Args:
        x: Float `(B, *S)`.
        step_size: The first step size, in input units.

    Returns:
        The state.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.attacks.gradient.sparse_ascent import start_sparse
        >>> start_sparse(tf.zeros((2, 3)), 0.5).step_size.numpy().tolist()
        [0.5, 0.5]
    """
    each = tf.zeros(tf.shape(x)[:1])
    sizes = tf.cast(each, x.dtype) + step_size
    return SparseState(Best.none(x), sizes, each, each)


def sparse_step(
    ball: Ball, iterate: Iterate, value: tf.Tensor, steps: int, step_size: Any
) -> tuple[tf.Tensor, SparseState]:
    """Take a step along the signs of the largest components of the gradient.

    At every 25th part of the steps, 1/1.5 of the number of components that the best
    perturbation changes becomes the number of components to move. Where that
    perturbation became sparser by a twentieth, the step size is set back to the first
    one and the search goes on from the best iterate; elsewhere the step size is divided
    by 1.5, down to a tenth of the first.

    Args:
        ball: Where to search, an `L1Ball`.
        iterate: Where the step starts, with a `SparseState`.
        value: Float32 `(B,)`, the objective there.
        steps: The number of steps in all.
        step_size: The first step size, in input units.

    Returns:
        The next iterate and state.

    Reference:
        arXiv 2103.01208, algorithm 1.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.attacks.search.iterate import Iterate
        >>> from keras_jsigr.attacks.balls.l1_ball import L1Ball
        >>> from keras_jsigr.attacks.gradient.sparse_ascent import (
        ...     sparse_step,
        ...     start_sparse,
        ... )
        >>> x, zero = tf.constant([[0.5, 0.5]]), tf.constant(0)
        >>> state, ball = start_sparse(x, 0.25), L1Ball(x, 0.25, (0.0, 1.0))
        >>> iterate = Iterate(x, tf.constant([[2.0, 1.0]]), None, None, state, zero)
        >>> sparse_step(ball, iterate, tf.zeros(1), 10, 0.25)[0].numpy().tolist()
        [[0.75, 0.5]]
    """
    state: SparseState = iterate.state
    best = state.best.seen(iterate.x, iterate.gradient, value)
    span = max(int(_SPAN * steps), 1)
    start = iterate.step == 0
    check = ~start & (iterate.step % span == 0)

    features = tf.cast(cast(L1Ball, ball).dimensions, tf.float32)
    axes = list(range(1, iterate.x.shape.rank))
    changed = tf.math.count_nonzero(best.x - ball.origin, axes, dtype=tf.float32)
    sparser = check & (changed < _SPARSER * state.changed)
    shorter = tf.maximum(state.step_size / _SHORTER, step_size / _SHORTEST)
    length = tf.where(check, shorter, state.step_size)
    state = SparseState(
        best,
        tf.where(sparser, tf.zeros_like(length) + step_size, length),
        tf.where(
            start, _SHARE * features, tf.where(check, changed / _FEWER, state.count)
        ),
        tf.where(start, features, tf.where(check, changed, state.changed)),
    )
    x = pick(sparser, best.x, iterate.x)
    gradient = pick(sparser, best.gradient, iterate.gradient)
    step = like(state.step_size, x) * sparse_sign(gradient, state.count)
    return ball.project(x + step), state
