"""Norm balls cut with the input range: steepest step, projection, random points."""

from __future__ import annotations

import math
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from keras_jsigr.core.random import ALGORITHM, fold_in

# The share of the components that a plain gradient step moves.
_SHARE = 0.05


class L1Ball:
    """Hold `{x : ||x - origin||_1 <= epsilon, low <= x_i <= high}` per example."""

    def __init__(
        self,
        origin: tf.Tensor,
        epsilon: Any,
        input_range: tuple[float, float],
        region: tf.Tensor | None = None,
    ) -> None:
        self.origin = origin
        self.region = region
        self._epsilon = epsilon
        self._range = input_range

    @property
    def dimensions(self) -> tf.Tensor:
        """The number of components that may change, float `(B,)`."""
        free = tf.ones_like(self.origin) if self.region is None else self.region
        return tf.reduce_sum(free, list(range(1, self.origin.shape.rank)))

    def steepest(self, gradient: tf.Tensor) -> tf.Tensor:
        """Return the sign of the largest twentieth of the components, of length one."""
        return sparse_sign(gradient, tf.math.ceil(_SHARE * self.dimensions))

    def project(self, x: tf.Tensor) -> tf.Tensor:
        """Return the nearest point of ball and range; see `project_l1`."""
        origin = tf.cast(self.origin, tf.float64)
        delta = tf.ensure_shape(tf.cast(x, tf.float64), origin.shape) - origin
        low, high = self._range
        room = tf.maximum(tf.where(delta > 0, high - origin, origin - low), 0.0)
        if self.region is not None:
            room *= tf.cast(self.region, tf.float64)
        epsilon = tf.convert_to_tensor(self._epsilon, dtype_hint=tf.float64)
        delta = project_l1(delta, room, tf.cast(epsilon, tf.float64))
        near = tf.cast(origin + delta, x.dtype)
        # Hundreds of roundings away from the origin would add up to leave the ball.
        outside = tf.abs(tf.cast(near, tf.float64) - origin) > tf.abs(delta)
        near = tf.where(outside, tf.math.nextafter(near, self.origin), near)
        return tf.clip_by_value(near, low, high)

    def sample(self, seed: tf.Tensor) -> tf.Tensor:
        """Draw uniformly from the ball, then clip to the range."""
        shape, dtype = tf.shape(self.origin), self.origin.dtype
        axes = list(range(1, self.origin.shape.rank))

        def uniform(shape: tf.Tensor, stream: int, low: float) -> tf.Tensor:
            seeds = fold_in(seed, stream)
            return tf.random.stateless_uniform(shape, seeds, low, 1.0, dtype, alg=ALGORITHM)

        one_each = tf.where(tf.range(tf.size(shape)) == 0, shape, 1)
        size = -tf.math.log1p(-uniform(shape, 0, 0.0))
        rest = -tf.math.log1p(-uniform(one_each, 1, 0.0))
        if self.region is not None:
            size *= self.region
        total = rest + tf.reduce_sum(size, axes, keepdims=True)
        share = size / tf.where(total > 0, total, tf.ones_like(total))
        sign = tf.sign(uniform(shape, 2, -1.0))
        return self.project(self.origin + self._epsilon * sign * share)


def project_l1(delta: tf.Tensor, room: tf.Tensor, epsilon: tf.Tensor) -> tf.Tensor:
    """Project perturbations exactly onto an L1 ball cut with a box."""
    flat = [tf.shape(delta)[0], delta.shape[1:].num_elements()]
    size, limit = tf.abs(tf.reshape(delta, flat)), tf.reshape(room, flat)
    # clip(a - s, 0, c) = relu(a - s) - relu((a - c) - s): two bends per component.
    bends = tf.concat([size, tf.maximum(size - limit, 0.0)], axis=1)
    bends, order = tf.math.top_k(bends, bends.shape[1])
    slope = tf.where(order < flat[1], tf.ones_like(bends), -tf.ones_like(bends))
    falling, height = tf.cumsum(slope, axis=1), tf.cumsum(slope * bends, axis=1)
    after = tf.concat([bends[:, 1:], tf.zeros_like(bends[:, :1])], axis=1)
    # The sum at the lower end of each piece; it grows from left to right.
    below = tf.cast(height - falling * after < epsilon, tf.int32)
    piece = tf.minimum(tf.reduce_sum(below, axis=1), 2 * flat[1] - 1)
    fall, top = (tf.gather(t, piece, batch_dims=1) for t in (falling, height))
    shift = (top - epsilon) / tf.maximum(fall, 1.0)
    inside = tf.reduce_sum(tf.minimum(size, limit), axis=1) <= epsilon
    shift = tf.where(inside, tf.zeros_like(shift), shift)
    moved = tf.minimum(tf.maximum(size - shift[:, None], 0.0), limit)
    return tf.sign(delta) * tf.reshape(moved, tf.shape(delta))


def sparse_sign(gradient: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    """Return the signs of the largest components, divided by their number."""
    size, features = tf.abs(gradient), gradient.shape[1:].num_elements()
    flat = tf.reshape(size, [tf.shape(size)[0], features])
    ordered = tf.math.top_k(flat, features).values
    last = tf.clip_by_value(tf.cast(count, tf.int32) - 1, 0, features - 1)
    least = tf.gather(ordered, last, batch_dims=1)
    each = [-1] + [1] * (gradient.shape.rank - 1)
    kept = tf.where(size >= tf.reshape(least, each), tf.sign(gradient), 0.0)
    axes = list(range(1, gradient.shape.rank))
    number = tf.reduce_sum(tf.abs(kept), axes, keepdims=True)
    return kept / tf.maximum(number, 1.0)


def _sample_axes(x: tf.Tensor) -> list[int]:
    return list(range(1, x.shape.rank))


def _divide(x: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    return x / tf.where(size > 0, size, tf.ones_like(size))


def l2_norm(x: tf.Tensor) -> tf.Tensor:
    """Compute `||x_b||_2` per example, safe from over- and underflow of the squares."""
    axes = _sample_axes(x)
    largest = tf.reduce_max(tf.abs(x), axes, keepdims=True)
    scaled = _divide(x, largest)
    return largest * tf.sqrt(tf.reduce_sum(tf.square(scaled), axes, keepdims=True))


def safe_normalize(x: tf.Tensor) -> tf.Tensor:
    """Compute `x_b / ||x_b||_2` per example; a zero example stays zero."""
    # The largest magnitude first: the squares of 1e-30 vanish in float32.
    x = _divide(x, tf.reduce_max(tf.abs(x), _sample_axes(x), keepdims=True))
    return _divide(x, l2_norm(x))


def mean_normalize(x: tf.Tensor) -> tf.Tensor:
    """Compute `x_b / mean_i |x_bi|` per example; a zero example stays zero."""
    return _divide(x, tf.reduce_mean(tf.abs(x), _sample_axes(x), keepdims=True))


class Ball(Protocol):
    """What attacks ask of a norm; a new norm is one class with these methods."""

    origin: tf.Tensor

    def __init__(
        self,
        origin: tf.Tensor,
        epsilon: Any,
        input_range: tuple[float, float],
        region: tf.Tensor | None = None,
    ) -> None:
        """Surround `origin` by the points closer than `epsilon` and in the range."""

    def steepest(self, gradient: tf.Tensor) -> tf.Tensor:
        """Return the step of length one along which a linear function grows most."""

    def project(self, x: tf.Tensor) -> tf.Tensor:
        """Bring `x` back into the ball and the range."""

    def sample(self, seed: tf.Tensor) -> tf.Tensor:
        """Draw a point of the ball per example, then bring it into the range."""


class LinfBall:
    """Hold `{x : |x_i - origin_i| <= epsilon, low <= x_i <= high}` per example."""

    def __init__(
        self,
        origin: tf.Tensor,
        epsilon: Any,
        input_range: tuple[float, float],
        region: tf.Tensor | None = None,
    ) -> None:
        self.origin = origin
        self._epsilon = epsilon
        # The box does not move: built once, every projection is one clipping.
        self._lower = tf.maximum(self._edge(origin - epsilon), input_range[0])
        self._upper = tf.minimum(self._edge(origin + epsilon), input_range[1])
        if region is not None:
            self._lower = tf.where(region > 0, self._lower, origin)
            self._upper = tf.where(region > 0, self._upper, origin)

    def _edge(self, edge: tf.Tensor) -> tf.Tensor:
        # In 0..255 the rounding of `x + epsilon` alone leaves the ball by 7e-6.
        outside = tf.abs(edge - self.origin) > self._epsilon
        return tf.where(outside, tf.math.nextafter(edge, self.origin), edge)

    def steepest(self, gradient: tf.Tensor) -> tf.Tensor:
        """Return `sign(gradient)`, zero where the gradient is zero."""
        return tf.sign(gradient)

    def project(self, x: tf.Tensor) -> tf.Tensor:
        """Clip every component; the exact projection."""
        return tf.clip_by_value(x, self._lower, self._upper)

    def sample(self, seed: tf.Tensor) -> tf.Tensor:
        """Draw uniformly from the ball (arXiv 1706.06083), then clip to the range."""
        noise = tf.random.stateless_uniform(
            tf.shape(self.origin), seed, -1.0, 1.0, self.origin.dtype, alg=ALGORITHM
        )
        return self.project(self.origin + self._epsilon * noise)


class L2Ball:
    """Hold `{x : ||x - origin||_2 <= epsilon, low <= x_i <= high}` per example."""

    def __init__(
        self,
        origin: tf.Tensor,
        epsilon: Any,
        input_range: tuple[float, float],
        region: tf.Tensor | None = None,
    ) -> None:
        self.origin = origin
        self._range = input_range
        self._region = region
        # Room for the rounding of the norm; for that of the inputs see `range_slack`.
        self._epsilon = epsilon * (1.0 - 1e-6)

    def steepest(self, gradient: tf.Tensor) -> tf.Tensor:
        """Return `gradient / ||gradient||_2`, zero for a zero gradient."""
        return safe_normalize(gradient)

    def project(self, x: tf.Tensor) -> tf.Tensor:
        """Shrink the perturbation onto the sphere, then clip to the range."""
        delta = x - self.origin
        if self._region is not None:
            delta *= self._region
        epsilon = tf.cast(self._epsilon, x.dtype)
        shrink = epsilon / tf.maximum(l2_norm(delta), tf.maximum(epsilon, 1e-30))
        return tf.clip_by_value(self.origin + delta * shrink, *self._range)

    def sample(self, seed: tf.Tensor) -> tf.Tensor:
        """Draw uniformly from the ball, then clip to the range."""
        shape, dtype = tf.shape(self.origin), self.origin.dtype
        noise = tf.random.stateless_normal(shape, fold_in(seed, 0), dtype=dtype, alg=ALGORITHM)
        dimensions = tf.cast(tf.reduce_prod(shape[1:]), dtype)
        if self._region is not None:
            noise *= self._region
            axes = list(range(1, self.origin.shape.rank))
            dimensions = tf.reduce_sum(self._region, axes, keepdims=True)
            dimensions = tf.maximum(dimensions, 1.0)
        one_each = tf.where(tf.range(tf.size(shape)) == 0, shape, 1)
        u = tf.random.stateless_uniform(one_each, fold_in(seed, 1), dtype=dtype, alg=ALGORITHM)
        radius = self._epsilon * u ** (1.0 / dimensions)
        moved = self.project(self.origin + radius * safe_normalize(noise))
        return tf.ensure_shape(moved, self.origin.shape)


BALLS: dict[str, type[Ball]] = {"linf": LinfBall, "l2": L2Ball, "l1": L1Ball}
# The largest relative distance of neighbouring numbers.
SPACING = {tf.float16: 2.0**-10, tf.bfloat16: 2.0**-7}


def working_dtype(dtype: Any) -> Any:
    """Return the dtype an attack computes in: float64 for float64, else float32."""
    return tf.float64 if tf.as_dtype(dtype) == tf.float64 else tf.float32


def round_towards(x: tf.Tensor, origin: tf.Tensor, dtype: Any) -> tf.Tensor:
    """Cast `x` to `dtype` so that no component gets farther from `origin`."""
    if x.dtype == dtype:
        return x

    delta = x - origin
    near = tf.cast(x, dtype)
    farther = tf.abs(tf.cast(near, x.dtype) - origin) > tf.abs(delta)
    step = tf.minimum(tf.abs(delta), tf.abs(x) * SPACING[dtype])
    back = tf.cast(x - tf.sign(delta) * step, dtype)
    # The gradient is that of `near`. Neighbours differ exactly, so the sum is `back`.
    # No custom gradient: TensorFlow would keep its function, and the graph, for ever.
    return near + tf.stop_gradient(tf.where(farther, back - near, tf.zeros_like(near)))


def level_candidates(
    x: tf.Tensor,
    origin: tf.Tensor,
    epsilon: Any,
    norm: str,
    input_range: tuple[float, float],
    levels: int,
) -> list[tf.Tensor]:
    """Round `x` to evenly spaced values in ball and range: nearest, outwards, inwards."""
    low, high = input_range
    step = (high - low) / (levels - 1)
    moved, radius = (x - origin) / step, tf.cast(epsilon, x.dtype) / step
    # 7.99999 steps are 8: the tolerances are those of float32, and less than `is_feasible` has.
    inwards = tf.sign(moved) * tf.floor(tf.abs(moved) + 1e-4)
    outwards = tf.sign(moved) * tf.math.ceil(tf.abs(moved) - 1e-4)
    found = []
    for steps in (tf.round(moved), outwards, inwards):
        if norm == "linf":
            most = tf.floor(radius * (1.0 + 5e-5))
            steps = tf.clip_by_value(steps, -most, most)
        else:
            sizes = tf.abs(steps)
            length = l2_norm(sizes) if norm == "l2" else tf.reduce_sum(sizes, _sample_axes(x), True)
            steps = tf.where(length <= radius * (1.0 + 5e-5), steps, inwards)
        number = tf.clip_by_value(tf.round((origin - low) / step) + steps, 0.0, levels - 1.0)
        found.append(tf.where(steps == 0.0, origin, low + step * number))
    return found


# What rounding alone may put a point beyond the ball and the range.
RELATIVE_SLACK, _ABSOLUTE = 1e-4, 1e-6
_ROWS = 256


def is_feasible(
    x_adv: npt.NDArray[Any],
    x: npt.NDArray[Any],
    epsilon: float,
    norm: str,
    input_range: tuple[float, float],
) -> npt.NDArray[np.bool_]:
    """Tell per example whether a point is in the ball and the range, up to rounding."""
    if x_adv.shape != x.shape:
        raise ValueError(
            f"the attack returned shape {x_adv.shape}, expected {x.shape}. Return one "
            "point per example."
        )
    low, high = input_range
    reach = epsilon * (1.0 + RELATIVE_SLACK) + range_slack(np.float32, input_range)
    # An end of the range that the dtype of the inputs lacks is one of its neighbours.
    slack = range_slack(x.dtype, input_range)
    valid = np.zeros(len(x), bool)
    # In parts: float64 copies of all examples at once would be many times their size.
    for start in range(0, len(x), _ROWS):
        rows = slice(start, start + _ROWS)
        near = distance(x_adv[rows], x[rows], norm) <= reach
        flat = x_adv[rows].reshape(len(near), -1).astype(np.float64)
        allowed = (flat >= low - slack).all(-1) & (flat <= high + slack).all(-1)
        valid[rows] = near & allowed
    return valid


def range_slack(dtype: Any, input_range: tuple[float, float]) -> float:
    """Return how far rounding alone may put values outside of their range."""
    largest = max(map(abs, input_range))
    rounding = SPACING.get(tf.as_dtype(dtype), 0.0) / 2 * largest
    return max(_ABSOLUTE * max(1.0, largest), rounding)


def distance(x_adv: npt.NDArray[Any], x: npt.NDArray[Any], norm: str) -> npt.NDArray[np.float64]:
    """Return the length of each perturbation."""
    order = {"linf": np.inf, "l2": 2, "l1": 1}[norm]
    difference = x_adv.astype(np.float64) - x.astype(np.float64)
    lengths: npt.NDArray[np.float64] = np.linalg.norm(difference.reshape(len(x), -1), order, axis=1)
    return lengths


def widest_radius(norm: str, input_range: tuple[float, float], size: int) -> float:
    """Return the radius of the ball around any input that holds all others."""
    width = input_range[1] - input_range[0]
    return width * {"linf": 1.0, "l2": math.sqrt(size), "l1": float(size)}[norm]
