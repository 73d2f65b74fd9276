"""The strongest point found so far, per example."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from keras_jsigr.attacks.search.rows import pick


class Found(NamedTuple):
    """Hold one point per example and how strong it is.

    Attributes:
        x: Float `(B, *S)`.
        success: Bool `(B,)`: misclassified, or the target class reached.
        value: Float32 `(B,)`: the loss that the attack drives up.
    """

    x: tf.Tensor
    success: tf.Tensor
    value: tf.Tensor

    def take(self, rows: tf.Tensor) -> Found:
        """Return what was found for the examples with these numbers, int32 `(A,)`."""
        return Found(*(tf.gather(t, rows) for t in self))


def nothing_found(x: tf.Tensor) -> Found:
    """Return what every other point is stronger than.

    Args:
        x: Float `(B, *S)`.

    Returns:
        `x` itself, without success, of value minus infinity.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.attacks.search.found import nothing_found
        >>> nothing_found(tf.zeros((1, 2))).value.numpy().tolist()
        [-inf]
    """
    examples = tf.shape(x)[:1]
    return Found(x, tf.zeros(examples, tf.bool), tf.fill(examples, float("-inf")))


def choose(take: tf.Tensor, a: Found, b: Found) -> Found:
    """Take `a` where `take` is true, else `b`.

    Args:
        take: Bool `(B,)`.
        a: Points, shapes as in `b`.
        b: Points.

    Returns:
        The mixture, per example.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.attacks.search.found import choose, nothing_found
        >>> a, b = nothing_found(tf.zeros((2, 1))), nothing_found(tf.ones((2, 1)))
        >>> choose(tf.constant([True, False]), a, b).x.numpy().tolist()
        [[0.0], [1.0]]
    """
    return Found(
        pick(take, a.x, b.x),
        tf.where(take, a.success, b.success),
        tf.where(take, a.value, b.value),
    )


def stronger(new: Found, old: Found) -> Found:
    """Keep the stronger point: success first, then the larger value.

    Args:
        new: Points, shapes as in `old`.
        old: Points; kept where both are equally strong.

    Returns:
        The stronger of both, per example.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.attacks.search.found import Found, stronger
        >>> hit = Found(tf.zeros((1, 1)), tf.constant([True]), tf.constant([1.0]))
        >>> miss = Found(tf.ones((1, 1)), tf.constant([False]), tf.constant([9.0]))
        >>> stronger(miss, hit).value.numpy().tolist()
        [1.0]
    """
    better = (new.success == old.success) & (new.value > old.value)
    return choose((new.success & ~old.success) | better, new, old)
