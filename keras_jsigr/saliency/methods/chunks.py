"""Sums over many copies of a batch, as many at once as suit the machine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from keras_jsigr.core import settings
from keras_jsigr.core.sum_in_groups import sum_in_groups

# From here on a call is no faster per example: 128 x 5 images of 28 x 28 on 2 cores.
VALUES_AT_ONCE = 2**19


def sum_in_chunks(
    count: int,
    x: tf.Tensor,
    part: Callable[[tf.Tensor, tf.Tensor], Any],
    like: Any,
    chunk: int | None = None,
) -> Any:
    """Add up what groups of copies of a batch contribute.

    The loop keeps the sum alone, so memory does not grow with the number of copies.

    Args:
        count: Number of copies.
        x: The batch `(B, *S)`.
        part: Takes the number of the first copy of a group and the size of the group,
            int32 scalars; returns the sum over the group.
        like: Tensors of the shapes and dtypes of a sum.
        chunk: Examples that the model sees at once, at least one batch; `None` means
            as many as have about half a million input values.

    Returns:
        The sum over all groups, structured as `like`.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.saliency.methods.chunks import sum_in_chunks
        >>> def part(first, size):
        ...     return tf.cast(size, tf.float32)
        >>> float(sum_in_chunks(1000, tf.zeros((9, 2)), part, tf.zeros(()), 90))
        1000.0
    """
    values = int(np.prod(x.shape[1:], dtype=np.int64))
    examples = VALUES_AT_ONCE // max(values, 1) if chunk is None else chunk
    group = tf.maximum(examples // tf.maximum(tf.shape(x)[0], 1), 1)
    return sum_in_groups(count, group, part, like)


def as_rows(copies: Any) -> tf.Tensor:
    """Put the copies of a batch below each other.

    Args:
        copies: Tensor `(k, B, *S)`.

    Returns:
        `(k * B, *S)`, all of the first copy before the second.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.saliency.methods.chunks import as_rows
        >>> as_rows(tf.constant([[[1.0], [2.0]], [[3.0], [4.0]]])).numpy().ravel()
        array([1., 2., 3., 4.], dtype=float32)
    """
    shape = tf.shape(copies)
    rows = tf.reshape(copies, tf.concat([[shape[0] * shape[1]], shape[2:]], axis=0))
    return tf.ensure_shape(rows, (None, *copies.shape[2:]))


def check_chunk(chunk: int | None) -> None:
    """Refuse a number of examples at once that is not positive.

    Args:
        chunk: The number, or `None`.

    Raises:
        ValueError: If it is no positive integer.

    Example:
        >>> from keras_jsigr.saliency.methods.chunks import check_chunk
        >>> check_chunk(None)
    """
    if chunk is not None:
        settings.count("chunk", chunk)
