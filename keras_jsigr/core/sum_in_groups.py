"""Sum over many copies of a batch, as many at once as are good for the model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf


def sum_in_groups(
    count: Any,
    group: Any,
    part: Callable[[tf.Tensor, Any], Any],
    like: Any,
) -> Any:
    """Add up what groups of copies contribute; the loop keeps the sum alone.

    Where `count` and `group` are ints, all shapes are static, as XLA needs them.

    Args:
        count: Number of copies, an int or int32 scalar.
        group: Copies in a group, >= 1, an int or int32 scalar; the last group may be
            smaller.
        part: Takes the number of the first copy of a group, an int32 scalar, and the
            size of the group, an int or int32 scalar; returns the sum over the group.
        like: Tensors of the shapes and dtypes of a sum.

    Returns:
        The sum over all groups, structured as `like`.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.core.sum_in_groups import sum_in_groups
        >>> def part(first, size):
        ...     return tf.cast(size, tf.float32)
        >>> float(sum_in_groups(1000, tf.constant(90), part, tf.zeros(())))
        1000.0
    """

    def plus(total: Any, first: tf.Tensor, size: Any) -> Any:
        more = part(first, size)
        return tf.nest.map_structure(
            lambda a, b: tf.ensure_shape(a + b, a.shape), total, more
        )

    nothing = tf.nest.map_structure(tf.zeros_like, like)
    if isinstance(count, int) and isinstance(group, int):
        rest = count % group
        total = _loop(count - rest, lambda _: group, plus, nothing)
        return plus(total, tf.constant(count - rest), rest) if rest else total
    count = tf.convert_to_tensor(count, tf.int32)
    return _loop(count, lambda first: tf.minimum(group, count - first), plus, nothing)


def _loop(
    count: Any,
    size_at: Callable[[tf.Tensor], Any],
    plus: Callable[[Any, tf.Tensor, Any], Any],
    nothing: Any,
) -> Any:
    def add(first: tf.Tensor, total: Any) -> Any:
        size = size_at(first)
        return first + size, plus(total, first, size)

    start = (tf.constant(0), nothing)
    end: tuple[tf.Tensor, Any] = tf.while_loop(
        lambda first, _: first < count, add, start
    )
    return end[1]
