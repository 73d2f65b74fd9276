"""The mean of a function over numbered draws, in constant memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf


def mean_over(
    count: int, function: Callable[[Any], tf.Tensor], like: tf.Tensor
) -> tf.Tensor:
    """Compute `(1 / count) * sum_{n < count} function(n)`.

    Args:
        count: Number of terms, >= 1.
        function: Takes an int32 scalar, returns a tensor like `like`.
        like: A tensor of the shape and dtype of a term.

    Returns:
        Like `like`.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.attacks.transfer.mean_over import mean_over
        >>> like = tf.zeros((1,))
        >>> mean_over(3, lambda n: tf.cast([n], tf.float32), like).numpy().tolist()
        [1.0]
    """
    if count == 1:
        return function(tf.constant(0))

    def add(number: tf.Tensor, total: tf.Tensor) -> Any:
        return number + 1, total + function(number)

    _, total = tf.while_loop(
        lambda number, _: number < count,
        add,
        (tf.constant(0), tf.zeros_like(like)),
        maximum_iterations=count,
    )
    return total / count
