"""Second-order gradients of normalization layers, made right."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import tensorflow as tf

from keras_jsigr.core.exchanged import Exchanged


def moments(
    x: Any,
    axes: int | Sequence[int],
    shift: Any = None,
    keepdims: bool = False,
    name: str | None = None,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Compute mean and variance with every derivative intact.

    `mean = E[x]` and `variance = E[(x - mean)^2]`. `tf.nn.moments` returns the same
    values and first derivatives, but stops the gradient through the mean inside the
    variance, which makes every *second* derivative of BatchNormalization (in training
    mode), LayerNormalization and GroupNormalization wrong by up to several percent.

    Args:
        x: Tensor of any float dtype; float16 is computed in float32.
        axes: The axes to reduce.
        shift: Ignored, as `tf.nn.moments` does.
        keepdims: Whether to keep reduced axes with length one.
        name: A name for the operations.

    Returns:
        The tuple `(mean, variance)` in the dtype of `x`.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.core.exact_moments import moments
        >>> mean, variance = moments(tf.constant([1.0, 3.0]), [0])
        >>> float(mean), float(variance)
        (2.0, 1.0)
    """
    del shift
    with tf.name_scope(name or "moments"):
        x = tf.convert_to_tensor(x)
        wide = tf.cast(x, tf.float32) if x.dtype == tf.float16 else x
        mean = tf.reduce_mean(wide, axes, keepdims=True)
        variance = tf.reduce_mean(tf.square(wide - mean), axes, keepdims=True)
        if not keepdims:
            mean, variance = tf.squeeze(mean, axes), tf.squeeze(variance, axes)
        return tf.cast(mean, x.dtype), tf.cast(variance, x.dtype)


def exact_moments() -> AbstractContextManager[None]:
    """Let `tf.nn.moments` carry exact second derivatives inside the block.

    Keras computes the statistics of its normalization layers through the public
    `tf.nn.moments`, so this is the one place to mend. Values are unchanged; blocks may
    nest and may run in several threads.

    Returns:
        A context manager.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.core.exact_moments import exact_moments
        >>> with exact_moments():
        ...     mean, variance = tf.nn.moments(tf.constant([1.0, 3.0]), [0])
        >>> float(variance)
        1.0
    """
    return _EXACT.block()


_EXACT = Exchanged(tf.nn, "moments", lambda _: moments)
