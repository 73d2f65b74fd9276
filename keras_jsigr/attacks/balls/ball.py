"""The set an attack may search: a norm ball cut with the range of the inputs."""

from __future__ import annotations

from typing import Any, Protocol

import tensorflow as tf

from keras_jsigr.attacks.balls.l1_ball import L1Ball
from keras_jsigr.attacks.balls.normalize import l2_norm, safe_normalize
from keras_jsigr.attacks.search.seeds import ALGORITHM, fold_in


class Ball(Protocol):
    """What the engine asks of a norm; a new norm is one class with these methods.

    Attributes:
        origin: The centres, float32 or float64 `(B, *S)`.
    """

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
    """Hold `{x : max_i |x_i - origin_i| <= epsilon, low <= x_i <= high}` per example.

    Args:
        origin: Float32 or float64 `(B, *S)`.
        epsilon: Radius in input units, a number or a scalar of the same dtype.
        input_range: `(low, high)` in input units.
        region: Like `origin`, zero where the points must not differ from it.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.attacks.balls.ball import LinfBall
        >>> ball = LinfBall(tf.constant([[0.5, 1.0]]), 0.25, (0.0, 1.0))
        >>> ball.project(tf.constant([[0.0, 2.0]])).numpy().tolist()
        [[0.25, 1.0]]
    """

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
    """Hold `{x : ||x - origin||_2 <= epsilon, low <= x_i <= high}` per example.

    Args:
        origin: Float32 or float64 `(B, *S)`.
        epsilon: Radius in input units, a number or a scalar of the same dtype.
        input_range: `(low, high)` in input units.
        region: Like `origin`, zero where the points must not differ from it.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.attacks.balls.ball import L2Ball
        >>> ball = L2Ball(tf.constant([[0.0, 0.0]]), 0.5, (0.0, 1.0))
        >>> ball.project(tf.constant([[3.0, 4.0]])).numpy().round(5).tolist()
        [[0.30000001192092896, 0.4000000059604645]]
    """

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
        # Room for the rounding of the norm, so that the result is not outside for it;
        # that of the inputs themselves is left, as `range_slack` tells.
        self._epsilon = epsilon * (1.0 - 1e-6)

    def steepest(self, gradient: tf.Tensor) -> tf.Tensor:
        """Return `gradient / ||gradient||_2`, zero for a zero gradient."""
        return safe_normalize(gradient)

    def project(self, x: tf.Tensor) -> tf.Tensor:
        """Shrink the perturbation onto the sphere, then clip to the range.

        Clipping moves every component towards the origin, which lies in the range, so
        the result is in both sets; where both bind it need not be the nearest point.
        """
        delta = x - self.origin
        if self._region is not None:
            delta *= self._region
        # An infinite radius divided by itself would be no number.
        length = tf.maximum(l2_norm(delta), tf.constant(1e-30, x.dtype))
        shrink = tf.minimum(tf.cast(self._epsilon, x.dtype) / length, 1.0)
        return tf.clip_by_value(self.origin + delta * shrink, *self._range)

    def sample(self, seed: tf.Tensor) -> tf.Tensor:
        """Draw uniformly from the ball, then clip to the range.

        The direction is Gaussian and the radius `epsilon * u^(1/d)`.
        """
        shape, dtype = tf.shape(self.origin), self.origin.dtype
        noise = tf.random.stateless_normal(
            shape, fold_in(seed, 0), dtype=dtype, alg=ALGORITHM
        )
        dimensions = tf.cast(tf.reduce_prod(shape[1:]), dtype)
        if self._region is not None:
            noise *= self._region
            axes = list(range(1, self.origin.shape.rank))
            dimensions = tf.reduce_sum(self._region, axes, keepdims=True)
            dimensions = tf.maximum(dimensions, 1.0)
        one_each = tf.where(tf.range(tf.size(shape)) == 0, shape, 1)
        u = tf.random.stateless_uniform(
            one_each, fold_in(seed, 1), dtype=dtype, alg=ALGORITHM
        )
        radius = self._epsilon * u ** (1.0 / dimensions)
        moved = self.project(self.origin + radius * safe_normalize(noise))
        return tf.ensure_shape(moved, self.origin.shape)


BALLS: dict[str, type[Ball]] = {"linf": LinfBall, "l2": L2Ball, "l1": L1Ball}
