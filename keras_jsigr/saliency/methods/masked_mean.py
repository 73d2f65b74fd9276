"""The mean score of an example where a place is masked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from keras_jsigr.saliency.methods.chunks import as_rows, sum_in_chunks

# From the number of the first mask of a group and the size of the group, int32
# scalars, to float32 masks `(size, *map_shape)`.
MasksFn = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


def masked_mean(
    score_of: Callable[[tf.Tensor, tf.Tensor], tf.Tensor],
    x: tf.Tensor,
    away: tf.Tensor,
    count: int,
    masks_of: MasksFn,
    map_shape: tuple[int, ...],
    chunk: int | None = None,
) -> tf.Tensor:
    """Average the scores of masked examples at every place, weighted by the masks.

    `sum_k m_k s_k / sum_k m_k` with `s_k = s(x + m_k away)`, zero where no mask is.
    Masks are made in the loop that uses them, so memory does not grow with their
    number.

    Args:
        score_of: Takes examples `(k B, *S)` and k; returns their scores `(k B,)`.
        x: Float data `(B, *S)`.
        away: Like `x`: what a mask of one adds.
        count: Number of masks.
        masks_of: Makes the masks of a group.
        map_shape: Their shape.
        chunk: Examples that the model sees at once, see `sum_in_chunks`.

    Returns:
        Float32 `(B, *map_shape)`.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.saliency.methods.masked_mean import masked_mean
        >>> x = tf.constant([[3.0, 5.0]])
        >>> masked_mean(
        ...     lambda rows, k: tf.reduce_sum(rows, axis=1),
        ...     x,
        ...     -x,
        ...     2,
        ...     lambda first, size: tf.eye(2)[first : first + size],
        ...     (2,),
        ... ).numpy().tolist()
        [[5.0, 3.0]]
    """
    # A channel axis for the masks where the data have one, and one for the batch.
    channels = [1] * (x.shape.rank - 1 - len(map_shape))

    def part(first: tf.Tensor, size: tf.Tensor) -> Any:
        masks = tf.ensure_shape(masks_of(first, size), (None, *map_shape))
        shares = tf.reshape(tf.cast(masks, x.dtype), (size, 1, *map_shape, *channels))
        scores = score_of(as_rows(x + shares * away), size)
        scores = tf.reshape(scores, (size, tf.shape(x)[0]))
        flat = tf.reshape(masks, (size, -1))
        return tf.matmul(scores, flat, transpose_a=True), tf.reduce_sum(flat, axis=0)

    cover = tf.zeros(int(np.prod(map_shape)))
    total = tf.zeros((tf.shape(x)[0], 1)) + cover
    total, cover = sum_in_chunks(count, x, part, (total, cover), chunk)
    mean = tf.math.divide_no_nan(total, cover)
    return tf.reshape(mean, (-1, *map_shape))
