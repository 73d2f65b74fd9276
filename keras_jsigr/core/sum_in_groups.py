"""Sum over many copies of a batch, as many at once as are good for the model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf


def sum_in_groups(
    count: Any,
    group: tf.Tensor,
    part: Callable[[tf.Tensor, tf.Tensor], Any],
    like: Any,
) -> Any:
    """Add up what groups of copies contribute; the loop keeps the sum alone.

    Args:
        count: Number of copies, an int or int32 scalar.
        group: Int32 scalar >= 1, copies in a group; the last one may be smaller.
        part: Takes the number of the first copy of a group and the size of the group,
            int32 scalars; returns the sum over the group.
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
    count = tf.convert_to_tensor(count, tf.int32)

    def add(first: tf.Tensor, total: Any) -> Any:
        size = tf.minimum(group, count - first)
        more = part(first, size)
        return first + size, tf.nest.map_structure(
            lambda a, b: tf.ensure_shape(a + b, a.shape), total, more
        )

    start = (tf.constant(0), tf.nest.map_structure(tf.zeros_like, like))
    end: tuple[tf.Tensor, Any] = tf.while_loop(
        lambda first, _: first < count, add, start
    )
    return end[1]
