"""How fast a map changes around an input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from keras_jsigr.core.as_float import as_float
from keras_jsigr.saliency.metrics.map_rows import map_rows, unit_rows

MapFn = Callable[[tf.Tensor], tf.Tensor]


def local_lipschitz(
    map_fn: MapFn,
    x: Any,
    *,
    radius: float,
    samples: int = 8,
    seed: Any = (0, 0),
    input_range: tuple[float, float] = (0.0, 1.0),
) -> tf.Tensor:
    """Estimate the local Lipschitz constant of the normalized map from random points.

    `max_k ||u(S(x_k)) - u(S(x))||_2 / ||x_k - x||_2`, `u(S) = S / ||S||_2`, over points
    drawn uniformly from the box of the radius and clipped to the range. Normalized, so
    that small gradients alone are no merit; a map of zeros stays one. A lower bound of
    the true constant, that grows with the number of points and falls with the radius.

    Args:
        map_fn: Maps inputs `(B, *S)` to maps `(B, *map_shape)` for a fixed class.
        x: Float `(B, *S)` in the range.
        radius: Half the side of the box, in input units, > 0.
        samples: Number of points, >= 1.
        seed: Int32 `(2,)`.
        input_range: `(low, high)` of valid inputs.

    Returns:
        Float32 `(B,)`, >= 0, per input unit; smaller is more stable.

    Raises:
        ValueError: If `radius` or `samples` is out of range.

    Reference:
        arXiv 1806.08049, equation 2, with random points for the maximum.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.saliency.metrics.local_lipschitz import local_lipschitz
        >>> local_lipschitz(tf.ones_like, tf.constant([[0.5, 0.5]]), radius=0.1).numpy()
        array([0.], dtype=float32)
    """
    if not radius > 0.0:
        raise ValueError(
            f"Got radius {radius!r}, expected a positive number in input units. Use "
            "the radius of the threat model."
        )
    if not isinstance(samples, int) or samples < 1:
        raise ValueError(
            f"Got samples {samples!r}, expected a positive integer. Eight are usual."
        )
    x = tf.convert_to_tensor(x)
    x = as_float(x)
    here = unit_rows(map_rows(map_fn(x)))

    def one_more(number: tf.Tensor, worst: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        seed_now = tf.random.experimental.stateless_fold_in(seed, number)
        noise = tf.random.stateless_uniform(
            tf.shape(x), seed_now, -radius, radius, x.dtype
        )
        point = tf.clip_by_value(x + noise, *input_range)
        change = tf.norm(unit_rows(map_rows(map_fn(point))) - here, axis=1)
        distance = tf.norm(map_rows(point - x), axis=1)
        ratio = tf.math.divide_no_nan(change, distance)
        return number + 1, tf.maximum(worst, ratio)

    start = (tf.constant(0), tf.zeros_like(here[:, 0]))
    _, worst = tf.while_loop(
        lambda number, _: number < samples,
        one_more,
        start,
        maximum_iterations=samples,
        parallel_iterations=1,
    )
    return worst
