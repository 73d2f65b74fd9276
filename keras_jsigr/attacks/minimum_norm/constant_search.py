"""Binary search, per example, of the weight of fooling against distance."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

# No upper bound is known above this.
_OPEN = 1e10


class ConstantSearch(NamedTuple):
    """Hold the constant to try next and its bounds.

    Attributes:
        constant: Float `(B,)`, > 0.
        low: Like `constant`: the largest that failed.
        high: Like `constant`: the smallest that succeeded.
    """

    constant: tf.Tensor
    low: tf.Tensor
    high: tf.Tensor


def constant_start(like: tf.Tensor, constant: float) -> ConstantSearch:
    """Return the search before the first try.

    Args:
        like: Float `(B,)`; gives size and dtype.
        constant: The first constant.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.attacks.minimum_norm.constant_search import constant_start
        >>> constant_start(tf.zeros(1), 0.5).constant.numpy().tolist()
        [0.5]
    """
    zero = tf.zeros_like(like)
    return ConstantSearch(zero + constant, zero, zero + _OPEN)


def constant_next(search: ConstantSearch, success: tf.Tensor) -> ConstantSearch:
    """Narrow the bounds: less where the last constant succeeded, more where not.

    Args:
        search: The bounds and the constant that was tried.
        success: Bool `(B,)`: a fooling point was found with it.

    Returns:
        The new bounds and their middle; ten times the constant as long as none
        succeeded.

    Reference:
        arXiv 1608.04644, section VI-A.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.attacks.minimum_norm.constant_search import (
        ...     constant_next,
        ...     constant_start,
        ... )
        >>> search, fooled = (
        ...     constant_start(tf.zeros(2), 1.0),
        ...     tf.constant([True, False]),
        ... )
        >>> constant_next(search, fooled).constant.numpy().tolist()
        [0.5, 10.0]
    """
    low = tf.where(success, search.low, tf.maximum(search.low, search.constant))
    high = tf.where(success, tf.minimum(search.high, search.constant), search.high)
    more = tf.minimum(10.0 * search.constant, _OPEN)
    return ConstantSearch(tf.where(high < _OPEN, (low + high) / 2.0, more), low, high)
