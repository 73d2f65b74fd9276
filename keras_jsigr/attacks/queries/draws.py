"""Sums over many random draws, as many at once as a model likes to see."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

# Enough examples per call of the model that its fixed cost does not count.
_EXAMPLES_AT_ONCE = 512


def sum_over_draws(
    count: Any,
    examples: tf.Tensor,
    draw: Callable[[tf.Tensor, tf.Tensor], Any],
    like: Any,
) -> Any:
    """Add up what groups of draws contribute.

    Args:
        count: Number of draws, an int or int32 scalar.
        examples: Int32 scalar, how many examples the model sees per draw.
        draw: Takes the number of the first draw of a group, for its seed, and the
            size of the group, int32 scalars; returns the sum over the group.
        like: Tensors of the shapes and dtypes of a sum.

    Returns:
        The sum over all groups, structured as `like`.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.attacks.queries.draws import sum_over_draws
        >>> def draw(first, size):
        ...     return tf.cast(size, tf.float32)
        >>> float(sum_over_draws(1000, tf.constant(9), draw, tf.zeros(())))
        1000.0
    """
    count = tf.convert_to_tensor(count, tf.int32)
    group = tf.maximum(_EXAMPLES_AT_ONCE // tf.maximum(examples, 1), 1)

    def add(first: tf.Tensor, total: Any) -> Any:
        size = tf.minimum(group, count - first)
        more = draw(first, size)
        return first + size, tf.nest.map_structure(
            lambda a, b: tf.ensure_shape(a + b, a.shape), total, more
        )

    start = (tf.constant(0), tf.nest.map_structure(tf.zeros_like, like))
    end: tuple[tf.Tensor, Any] = tf.while_loop(
        lambda first, _: first < count, add, start
    )
    return end[1]
