"""The closest fooling point found so far, per example."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from keras_jsigr.attacks.balls.normalize import l2_norm
from keras_jsigr.attacks.search.rows import pick


class Closest(NamedTuple):
    """Hold one point per example and how far from the input it is.

    Attributes:
        x: Float32 or float64 `(B, *S)`.
        distance: Like `x` in dtype, `(B,)`, in input units; infinite where nothing was
            found yet and `x` is the input itself.
    """

    x: tf.Tensor
    distance: tf.Tensor

    @property
    def found(self) -> tf.Tensor:
        """Bool `(B,)`: a fooling point is known."""
        return tf.math.is_finite(self.distance)

    def take(self, rows: tf.Tensor) -> Closest:
        """Return the points of some examples.

        Args:
            rows: Int32 `(A,)`, their numbers.
        """
        return Closest(tf.gather(self.x, rows), tf.gather(self.distance, rows))


def none_closer(origin: tf.Tensor) -> Closest:
    """Return what every fooling point is closer than.

    Args:
        origin: Float32 or float64 `(B, *S)`, the inputs.

    Returns:
        The inputs themselves, at an infinite distance.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.attacks.minimum_norm.closest import none_closer
        >>> none_closer(tf.zeros((1, 2))).distance.numpy().tolist()
        [inf]
    """
    infinite = tf.constant(float("inf"), origin.dtype)
    return Closest(origin, tf.fill(tf.shape(origin)[:1], infinite))


def closer(
    old: Closest, x: tf.Tensor, fools: tf.Tensor, origin: tf.Tensor, norm: str
) -> Closest:
    """Keep the points that fool and are closer than those known.

    Args:
        old: The points known.
        x: New points, like `old.x`.
        fools: Bool `(B,)`: the new point fools the model.
        origin: Like `x`, the inputs.
        norm: `"linf"`, `"l2"` or `"l1"`.

    Returns:
        The closer of both, per example.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.attacks.minimum_norm.closest import closer, none_closer
        >>> origin, x, fools = (
        ...     tf.zeros((2, 1)),
        ...     tf.ones((2, 1)),
        ...     tf.constant([1, 0]) > 0,
        ... )
        >>> closer(
        ...     none_closer(origin), x, fools, origin, "l2"
        ... ).distance.numpy().tolist()
        [1.0, inf]
    """
    distance = lengths(x - origin, norm)
    take = fools & (distance < old.distance)
    return Closest(
        pick(take, x, old.x),
        tf.where(take, distance, old.distance),
    )


def lengths(delta: tf.Tensor, norm: str) -> tf.Tensor:
    """Compute `||delta_b||_p` per example.

    Args:
        delta: Float32 or float64 `(B, *S)`.
        norm: `"linf"`, `"l2"` or `"l1"`.

    Returns:
        Same dtype, `(B,)`.

    Raises:
        KeyError: If the norm is another one.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.attacks.minimum_norm.closest import lengths
        >>> delta = tf.constant([[3.0, -4.0]])
        >>> [float(lengths(delta, norm)[0]) for norm in ("linf", "l2", "l1")]
        [4.0, 5.0, 7.0]
    """
    axes = list(range(1, delta.shape.rank))
    if norm == "l2":
        return tf.reshape(l2_norm(delta), [-1])
    reduce = {"linf": tf.reduce_max, "l1": tf.reduce_sum}[norm]
    return reduce(tf.abs(delta), axes)
