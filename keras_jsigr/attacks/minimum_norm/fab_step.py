"""One step of the fast adaptive boundary attack."""

from __future__ import annotations

import tensorflow as tf

from keras_jsigr.attacks.minimum_norm.boundary import Boundary, value_at
from keras_jsigr.attacks.minimum_norm.closest import lengths
from keras_jsigr.attacks.minimum_norm.linear_projection import linear_projection
from keras_jsigr.attacks.search.rows import like


def fab_step(
    x: tf.Tensor,
    origin: tf.Tensor,
    plane: Boundary,
    input_range: tuple[float, float],
    norm: str,
    *,
    alpha_max: float = 0.1,
    eta: float = 1.05,
) -> tf.Tensor:
    """Step across a linearized boundary, with a bias towards the input.

    `x' = clip((1 - a) (x + eta d) + a (origin + eta d_0))` with the shortest ways `d`
    and `d_0` from the iterate and from the input to the plane, within the range, and
    `a = min(||d|| / (||d|| + ||d_0||), alpha_max)`.

    Args:
        x: Float32 or float64 `(B, *S)`, the iterates.
        origin: Like `x`, the inputs.
        plane: The boundary, linearized at `x`.
        input_range: `(low, high)` in input units.
        norm: `"linf"`, `"l2"` or `"l1"`.
        alpha_max: Largest weight of the step from the input, 0 to 1.
        eta: How far to go, one being the plane itself.

    Returns:
        Like `x`, within the range.

    Reference:
        arXiv 1907.02044, eq. 6 to 9.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.attacks.minimum_norm.boundary import Boundary
        >>> from keras_jsigr.attacks.minimum_norm.fab_step import fab_step
        >>> x, w = tf.constant([[0.5, 0.5]]), tf.constant([[1.0, 0.0]])
        >>> plane = Boundary(w, tf.constant([-0.25]), tf.constant([True]))
        >>> fab_step(x, x, plane, (0.0, 1.0), "l2", eta=1.2).numpy().round(1).tolist()
        [[0.800000011920929, 0.5]]
    """
    # Both projections at once: their rounds are shared.
    points = tf.concat([x, origin], axis=0)
    normals = tf.concat([plane.weights] * 2, axis=0)
    gaps = tf.concat([plane.gap, value_at(plane, x, origin)], axis=0)
    ways = linear_projection(points, normals, gaps, input_range, norm) - points
    way, way_0 = tf.split(ways, 2)
    length, length_0 = lengths(way, norm), lengths(way_0, norm)
    share = tf.math.divide_no_nan(length, length + length_0)
    share = like(tf.minimum(share, alpha_max), x)
    mixed = (1.0 - share) * (x + eta * way) + share * (origin + eta * way_0)
    return tf.clip_by_value(mixed, *input_range)
