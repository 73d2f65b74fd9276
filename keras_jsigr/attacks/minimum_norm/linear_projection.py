"""Nearest point of a hyperplane within the range of the inputs."""

from __future__ import annotations

from typing import Any

import tensorflow as tf


def linear_projection(
    x: tf.Tensor,
    weights: tf.Tensor,
    gap: tf.Tensor,
    input_range: tuple[float, float],
    norm: str = "l2",
) -> tf.Tensor:
    """Compute `argmin ||z - x||_p` over `<w, z - x> + gap = 0`, `low <= z <= high`.

    Every component moves towards the plane only, by `min(room_i, t)` under `"linf"`
    and `min(room_i, t |w_i|)` under `"l2"`, with the one `t` that reaches the plane;
    under `"l1"` the components of largest `|w_i|` use up their room first.

    Args:
        x: Float32 or float64 `(B, *S)` in the range, input units.
        weights: Like `x`; the normals `w`. Where they are zero, nothing moves.
        gap: Like `x` in dtype, `(B,)`; the linear function at `x`, of either sign.
        input_range: `(low, high)` in input units.
        norm: `"linf"`, `"l2"` or `"l1"`.

    Returns:
        Like `x`. If the plane misses the range: the corner nearest to it, that is the
        one where the linear function is closest to zero.

    Raises:
        KeyError: If the norm is another one.

    Reference:
        arXiv 1907.02044, section 3.1.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.attacks.minimum_norm.linear_projection import (
        ...     linear_projection,
        ... )
        >>> x, w, gap = tf.zeros((1, 2)), tf.constant([[3.0, 4.0]]), tf.constant([-5.0])
        >>> linear_projection(x, w, gap, (0.0, 1.0), "l2").numpy().round(3).tolist()
        [[0.6000000238418579, 0.800000011920929]]
        >>> linear_projection(x, w, gap, (0.0, 1.0), "l1").numpy().round(3).tolist()
        [[0.3330000042915344, 1.0]]
    """
    flat = tf.reshape(x, [tf.shape(x)[0], -1])
    w = tf.reshape(weights, tf.shape(flat))
    # Squares of small gradients vanish in float32; the plane is that of any multiple.
    size = tf.reduce_max(tf.abs(w), axis=-1, keepdims=True)
    size = tf.where(size > 0, size, tf.ones_like(size))
    w, gap = w / size, gap / size[:, 0]
    towards = -tf.sign(w) * tf.sign(gap)[:, None]
    low, high = input_range
    room = tf.where(towards > 0, high - flat, flat - low)
    # Without this, a zero weight would be asked for an infinite step.
    room = tf.where(towards == 0, tf.zeros_like(room), tf.maximum(room, 0.0))
    steps = _STEPS[norm](tf.abs(w), room, tf.abs(gap))
    z = tf.clip_by_value(flat + towards * steps, low, high)
    return tf.ensure_shape(tf.reshape(z, tf.shape(x)), x.shape)


def _l1_steps(slope: tf.Tensor, room: tf.Tensor, gap: tf.Tensor) -> tf.Tensor:
    """Fill the components of the largest slopes first."""
    order = tf.argsort(slope, axis=-1, direction="DESCENDING", stable=True)
    slope = tf.gather(slope, order, batch_dims=1)
    room = tf.gather(room, order, batch_dims=1)
    # Sums of many float32 lose the digits that the last, partial step is made of.
    gain = tf.cast(slope * room, tf.float64)
    before = tf.cumsum(gain, axis=-1, exclusive=True)
    missing = tf.cast(tf.cast(gap, tf.float64)[:, None] - before, slope.dtype)
    steps = tf.clip_by_value(tf.math.divide_no_nan(missing, slope), 0.0, room)
    return tf.gather(steps, tf.argsort(order, axis=-1), batch_dims=1)


def _linf_steps(slope: tf.Tensor, room: tf.Tensor, gap: tf.Tensor) -> tf.Tensor:
    return _even_steps(slope, tf.ones_like(slope), room, gap)


def _l2_steps(slope: tf.Tensor, room: tf.Tensor, gap: tf.Tensor) -> tf.Tensor:
    return _even_steps(slope, slope, room, gap)


def _even_steps(
    slope: tf.Tensor, speed: tf.Tensor, room: tf.Tensor, gap: tf.Tensor
) -> tf.Tensor:
    """Solve `sum_i slope_i * min(room_i, t * speed_i) = gap` for `t`; give the steps.

    The sum is concave in `t`: Newton's method comes from below and ends exactly, as
    soon as no further component uses up its room. A handful of cheap rounds replaces
    the sorting of all components.
    """
    gain, reach, zero = slope * room, slope * speed, tf.zeros_like(room)

    def next_time(full: tf.Tensor) -> tf.Tensor:
        rest = gap - tf.reduce_sum(tf.where(full, gain, zero), axis=-1)
        free = tf.reduce_sum(tf.where(full, zero, reach), axis=-1)
        t = tf.maximum(tf.math.divide_no_nan(rest, free), 0.0)
        # Nobody is left to move: the plane is out of reach.
        return tf.where(free > 0, t, tf.fill(tf.shape(t), t.dtype.max))[:, None]

    def body(full: tf.Tensor, t: tf.Tensor, go_on: tf.Tensor) -> Any:
        del go_on
        more = full | (t * speed >= room)
        return more, next_time(more), tf.reduce_any(more != full)

    full = room <= 0
    start = (full, next_time(full), tf.constant(True))
    full, t, _ = tf.while_loop(lambda full, t, go_on: go_on, body, start)
    return tf.where(full, room, tf.minimum(t * speed, room))


_STEPS = {"linf": _linf_steps, "l2": _l2_steps, "l1": _l1_steps}
