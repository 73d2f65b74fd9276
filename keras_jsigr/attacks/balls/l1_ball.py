"""The L1 ball cut with the range of the inputs, and sparse steps inside it."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from keras_jsigr.attacks.search.seeds import ALGORITHM, fold_in

# The share of the components that a plain gradient step moves.
_SHARE = 0.05


class L1Ball:
    """Hold `{x : sum_i |x_i - origin_i| <= epsilon, low <= x_i <= high}` per example.

    Args:
        origin: Float32 or float64 `(B, *S)`.
        epsilon: Radius in input units, a number or a scalar of the same dtype.
        input_range: `(low, high)` in input units.
        region: Like `origin`, zero where the points must not differ from it.

    Reference:
        arXiv 2103.01208.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.attacks.balls.l1_ball import L1Ball
        >>> ball = L1Ball(tf.constant([[0.75, 0.5, 0.5]]), 0.5, (0.0, 1.0))
        >>> ball.project(tf.constant([[2.0, 1.0, 0.5]])).numpy().tolist()
        [[1.0, 0.75, 0.5]]
    """

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
        """Return the sign of the largest twentieth of the components, of length one.

        The steepest step moves the largest component alone; many at once reach the
        optimum in fewer steps, and where one has met the range the others go on.
        """
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
        """Draw uniformly from the ball, then clip to the range.

        With exponential `e_i`, the magnitudes `e_i / (e_0 + sum_i e_i)` are uniform on
        the corner of the positive axes; the signs are even odds.
        """
        shape, dtype = tf.shape(self.origin), self.origin.dtype
        axes = list(range(1, self.origin.shape.rank))

        def uniform(shape: tf.Tensor, stream: int, low: float) -> tf.Tensor:
            seeds = fold_in(seed, stream)
            return tf.random.stateless_uniform(
                shape, seeds, low, 1.0, dtype, alg=ALGORITHM
            )

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
    """Project perturbations exactly onto an L1 ball cut with a box.

    The nearest point is `sign(delta_i) * clip(|delta_i| - shift, 0, room_i)` with the
    least `shift >= 0` that fits the radius. The sum of these is linear between the
    values `|delta_i|` and `|delta_i| - room_i`, which are sorted.

    Args:
        delta: Float64 `(B, *S)`, the perturbations.
        room: Like `delta`, >= 0: how far each component may go in its direction.
        epsilon: Scalar of the same dtype, >= 0; the radius in input units.

    Returns:
        Like `delta`.

    Reference:
        arXiv 2103.01208, proposition 2.1.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.attacks.balls.l1_ball import project_l1
        >>> delta, room = tf.constant([[3.0, -2.0]]), tf.constant([[9.0, 9.0]])
        >>> project_l1(delta, room, tf.constant(2.0)).numpy().tolist()
        [[1.5, -0.5]]
    """
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
    """Return the signs of the largest components, divided by their number.

    Args:
        gradient: Float `(B, *S)`.
        count: Float `(B,)`, how many components to keep, at least one; all that are as
            large as the last of them are kept too.

    Returns:
        Like `gradient`, of L1 norm one; zero for a zero gradient.

    Reference:
        arXiv 1904.13000, arXiv 2103.01208.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.attacks.balls.l1_ball import sparse_sign
        >>> gradient = tf.constant([[3.0, -2.0, 1.0]])
        >>> sparse_sign(gradient, tf.constant([2.0])).numpy().tolist()
        [[0.5, -0.5, 0.0]]
    """
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
