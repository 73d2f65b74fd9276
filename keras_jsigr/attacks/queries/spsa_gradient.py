"""A gradient from differences at random points: simultaneous perturbation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from keras_jsigr.attacks.queries.draws import sum_over_draws
from keras_jsigr.attacks.search.seeds import ALGORITHM, fold_in

# Losses of points (m * B, *S), the draws one after the other, and the points as seen.
Ask = Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]


def spsa_gradient(
    ask: Ask, x: tf.Tensor, *, pairs: int, delta: float, seed: tf.Tensor
) -> tf.Tensor:
    """Estimate the gradient of per-example losses from pairs of opposite points.

    `g_i = mean_k (L(a_k) - L(b_k)) / (a_k - b_k)_i` with `a_k, b_k = x +- delta * v_k`
    and every component of `v_k` one or minus one. What is divided by is the difference
    of the points as the model saw them, after clipping and rounding; where they agree,
    the estimate is zero. Unbiased for a quadratic loss where nothing is clipped, and
    for a linear one anywhere.

    Args:
        ask: Returns the losses, float32 `(m * B,)`, at points `(m * B, *S)`, and the
            points as the model saw them, in the dtype of `x`.
        x: Float `(B, *S)`.
        pairs: Number of pairs of points, >= 1.
        delta: How far they lie from `x` in each component, input units.
        seed: Int32 `(2,)`.

    Returns:
        Like `x`.

    Reference:
        arXiv 1802.05666.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.attacks.queries.spsa_gradient import spsa_gradient
        >>> x, w = tf.zeros((1, 2)), tf.constant([3.0, 0.0])
        >>> def ask(points):
        ...     return tf.linalg.matvec(points, w), points
        >>> g = spsa_gradient(ask, x, pairs=999, delta=0.1, seed=[0, 0])
        >>> round(float(g[0, 0]), 3)
        3.0
    """
    shape = tf.shape(x)
    examples = shape[0] if x.shape[0] is None else x.shape[0]

    def draw(first: tf.Tensor, size: Any) -> tf.Tensor:
        u = tf.random.stateless_uniform(
            tf.concat([[size], shape], axis=0), fold_in(seed, first), alg=ALGORITHM
        )
        step = tf.where(u < 0.5, tf.constant(delta, x.dtype), -delta)
        both = tf.stack([x + step, x - step])
        losses, seen = ask(tf.reshape(both, tf.concat([[-1], shape[1:]], axis=0)))
        a, b = tf.unstack(tf.reshape(seen, tf.shape(both)), num=2)
        up, down = tf.unstack(tf.reshape(losses, [2, size, examples]), num=2)
        rise = tf.cast(up - down, x.dtype)
        rise = tf.reshape(rise, tf.concat([[size], _per_example(shape)], axis=0))
        return tf.reduce_sum(tf.math.divide_no_nan(rise, a - b), axis=0)

    return sum_over_draws(pairs, 2 * examples, draw, x) / pairs


def _per_example(shape: tf.Tensor) -> tf.Tensor:
    return tf.where(tf.range(tf.size(shape)) == 0, shape, 1)
