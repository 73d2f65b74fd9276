"""Random points at a given distance."""

from __future__ import annotations

import tensorflow as tf

from keras_jsigr.attacks.minimum_norm.closest import lengths
from keras_jsigr.attacks.search.problem import Problem
from keras_jsigr.attacks.search.rows import like
from keras_jsigr.attacks.search.seeds import ALGORITHM


def sphere_point(
    problem: Problem,
    radius: tf.Tensor,
    norm: str,
    input_range: tuple[float, float],
    seed: tf.Tensor,
) -> tf.Tensor:
    """Draw a point at the distance `radius` per example, then clip to the range.

    `x + radius * n / ||n||_p`, with components of `n` that are uniform under `"linf"`,
    Gaussian under `"l2"` and of Laplace's distribution under `"l1"`. No radius is
    larger than half the diameter of the range.

    Args:
        problem: The batch; outside its region nothing changes.
        radius: Float32 or float64 `(B,)`, in input units; may be infinite.
        norm: `"linf"`, `"l2"` or `"l1"`.
        input_range: `(low, high)` in input units.
        seed: Int32 `(2,)`.

    Returns:
        Like `problem.origin`.

    Reference:
        arXiv 1907.02044, section 3.3.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.attacks.search.problem import Problem
        >>> from keras_jsigr.attacks.minimum_norm.sphere import sphere_point
        >>> problem = Problem(tf.fill((1, 9), 0.5), tf.ones((1, 1)))
        >>> radius, seed = tf.constant([0.25]), tf.constant([0, 0])
        >>> x = sphere_point(problem, radius, "l2", (0.0, 1.0), seed)
        >>> round(float(tf.norm(x - 0.5)), 5)
        0.25
    """
    origin, (low, high) = problem.origin, input_range
    shape, dtype = tf.shape(origin), origin.dtype
    if norm == "l2":
        noise = tf.random.stateless_normal(shape, seed, dtype=dtype, alg=ALGORITHM)
    else:
        noise = tf.random.stateless_uniform(
            shape, seed, -1.0, 1.0, dtype, alg=ALGORITHM
        )
    if norm == "l1":
        noise = -tf.sign(noise) * tf.math.log1p(-tf.abs(noise))
    free = tf.ones_like(origin) if problem.region is None else problem.region
    noise *= free
    radius = tf.minimum(radius, (high - low) * lengths(free, norm) / 2)
    scale = tf.math.divide_no_nan(radius, lengths(noise, norm))
    return tf.clip_by_value(origin + like(scale, origin) * noise, low, high)
