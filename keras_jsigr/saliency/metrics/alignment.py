"""Whether the gradient points along the image."""

from __future__ import annotations

from typing import Any, NamedTuple

import tensorflow as tf

from keras_jsigr.saliency.metrics.map_rows import two_map_rows, unit_rows


class Alignment(NamedTuple):
    """Alignment of inputs and gradients, per example.

    Attributes:
        length: Float32 `(B,)`, `|<x, g>| / ||g||`, in input units.
        cosine: Float32 `(B,)`, the same over `||x||`, 0 to 1.
    """

    length: tf.Tensor
    cosine: tf.Tensor


def alignment(x: Any, gradients: Any) -> Alignment:
    """Compute how far the input reaches along its gradient, and the angle's cosine.

    `|<x, g>| / ||g||_2` and `|<x, g>| / (||x||_2 ||g||_2)`. For a linear score without
    offset the first is the distance to its zero. Where the gradient or the input is
    zero, both are 0.

    Args:
        x: Float `(B, *S)`, the inputs.
        gradients: Of the same shape, the signed gradient of the class' logit (or of
            the margin).

    Returns:
        `length` and `cosine`, each float32 `(B,)`; larger is better aligned.

    Raises:
        ValueError: If shapes differ.

    Reference:
        arXiv 1905.04172.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.saliency.metrics.alignment import alignment
        >>> found = alignment(tf.constant([[3.0, 4.0]]), tf.constant([[0.0, -1e-9]]))
        >>> found.length.numpy().tolist(), found.cosine.numpy().round(6).tolist()
        ([4.0], [0.800000011920929])
    """
    rows, gradient_rows = two_map_rows(x, gradients)
    direction = unit_rows(gradient_rows)
    length = tf.abs(tf.reduce_sum(rows * direction, axis=1))
    return Alignment(length, tf.math.divide_no_nan(length, tf.norm(rows, axis=1)))
