"""How far each component goes where all go equally far."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

# A vector of ones has length d^power.
_POWERS = {"linf": 0.0, "l2": 0.5, "l1": 1.0}


def even_step(length: Any, x: tf.Tensor, norm: str) -> tf.Tensor:
    """Compute `length / ||1||`: a perturbation of this magnitude everywhere is as long.

    Args:
        length: In input units, a number or a scalar tensor.
        x: Float32 or float64 `(B, *S)`, whose components are counted.
        norm: `"linf"`, `"l2"` or `"l1"`.

    Returns:
        Scalar of the dtype of `x`, in input units.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.attacks.transfer.even_step import even_step
        >>> [float(even_step(1.0, tf.ones((5, 4)), n)) for n in ("linf", "l2", "l1")]
        [1.0, 0.5, 0.25]
    """
    components = tf.cast(tf.reduce_prod(tf.shape(x)[1:]), x.dtype)
    return tf.cast(length, x.dtype) / components ** _POWERS[norm]
