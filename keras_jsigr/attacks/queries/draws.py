"""Sums over many random draws, as many at once as a model likes to see."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from keras_jsigr.core.sum_in_groups import sum_in_groups

# Enough examples per call of the model that its fixed cost does not count.
_EXAMPLES_AT_ONCE = 512


def sum_over_draws(
    count: Any,
    examples: Any,
    draw: Callable[[tf.Tensor, Any], Any],
    like: Any,
) -> Any:
    """Add up what groups of draws contribute.

    Args:
        count: Number of draws, an int or int32 scalar.
        examples: How many examples the model sees per draw, an int or int32 scalar.
        draw: Takes the number of the first draw of a group, for its seed, an int32
            scalar, and the size of the group, an int or int32 scalar; returns the sum
            over the group.
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
    if isinstance(examples, int):
        group = max(_EXAMPLES_AT_ONCE // max(examples, 1), 1)
    else:
        group = tf.maximum(_EXAMPLES_AT_ONCE // tf.maximum(examples, 1), 1)
    return sum_in_groups(count, group, draw, like)
