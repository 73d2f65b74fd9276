"""Half precision inputs: round the perturbed point without leaving the ball."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

# The largest relative distance of neighbouring numbers.
SPACING = {tf.float16: 2.0**-10, tf.bfloat16: 2.0**-7}


def working_dtype(dtype: Any) -> Any:
    """Return the dtype an attack computes in: float64 for float64, else float32.

    Args:
        dtype: The dtype of the inputs.

    Returns:
        `tf.float64` or `tf.float32`.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.attacks.search.rounding import working_dtype
        >>> working_dtype(tf.float16).name
        'float32'
    """
    return tf.float64 if tf.as_dtype(dtype) == tf.float64 else tf.float32


def round_towards(x: tf.Tensor, origin: tf.Tensor, dtype: Any) -> tf.Tensor:
    """Cast `x` to `dtype` so that no component gets farther from `origin`.

    Plain rounding to float16 moves values near one by up to 2.4e-4, out of the ball
    and the range. The gradient passes straight through.

    Args:
        x: Float `(B, *S)` in the working dtype.
        origin: Same shape and dtype, with values that `dtype` can represent.
        dtype: The dtype of the inputs of the attack.

    Returns:
        `x` in `dtype`, between `origin` and `x`; `x` itself if `dtype` is its own.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.attacks.search.rounding import round_towards
        >>> x = tf.constant([0.5999])
        >>> float(tf.cast(x, tf.float16)[0]) > 0.5999
        True
        >>> float(round_towards(x, tf.constant([0.5]), tf.float16)[0]) < 0.5999
        True
    """
    if x.dtype == dtype:
        return x

    delta = x - origin
    near = tf.cast(x, dtype)
    farther = tf.abs(tf.cast(near, x.dtype) - origin) > tf.abs(delta)
    step = tf.minimum(tf.abs(delta), tf.abs(x) * SPACING[dtype])
    back = tf.cast(x - tf.sign(delta) * step, dtype)
    # The gradient is that of `near`. Neighbours differ exactly, so the sum is `back`.
    # No custom gradient: TensorFlow would keep its function, and the graph, for ever.
    return near + tf.stop_gradient(tf.where(farther, back - near, tf.zeros_like(near)))
