"""Inputs as a function of variables without bounds."""

from __future__ import annotations

import tensorflow as tf

# Where the range ends, the variable would be infinite.
_INSIDE = 1.0 - 1e-6


def to_box(w: tf.Tensor, input_range: tuple[float, float]) -> tf.Tensor:
    """Compute `low + (high - low) * (tanh(w) + 1) / 2`.

    Args:
        w: Float32 or float64, any shape.
        input_range: `(low, high)` in input units.

    Returns:
        Like `w`, within the range.

    Reference:
        arXiv 1608.04644, section V-B.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.attacks.minimum_norm.tanh_box import to_box
        >>> to_box(tf.constant([-9.0, 0.0, 90.0]), (0.0, 255.0)).numpy().round(
        ...     3
        ... ).tolist()
        [0.0, 127.5, 255.0]
    """
    low, high = input_range
    return tf.clip_by_value(low + (high - low) * (tf.tanh(w) + 1.0) / 2.0, low, high)


def from_box(x: tf.Tensor, input_range: tuple[float, float]) -> tf.Tensor:
    """Invert `to_box`; the ends of the range are moved inside by a millionth.

    Args:
        x: Float32 or float64 within the range, any shape.
        input_range: `(low, high)` in input units.

    Returns:
        Like `x`, finite.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.attacks.minimum_norm.tanh_box import from_box
        >>> from_box(tf.constant([127.5]), (0.0, 255.0)).numpy().tolist()
        [0.0]
    """
    low, high = input_range
    middle, half = (low + high) / 2.0, (high - low) / 2.0
    return tf.math.atanh(tf.clip_by_value((x - middle) / half, -1.0, 1.0) * _INSIDE)


def box_slope(w: tf.Tensor, input_range: tuple[float, float]) -> tf.Tensor:
    """Compute the derivative of `to_box`, `(high - low) / 2 * (1 - tanh(w)^2)`.

    Args:
        w: Float32 or float64, any shape.
        input_range: `(low, high)` in input units.

    Returns:
        Like `w`, >= 0.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.attacks.minimum_norm.tanh_box import box_slope
        >>> box_slope(tf.constant([0.0]), (0.0, 255.0)).numpy().tolist()
        [127.5]
    """
    low, high = input_range
    return (high - low) / 2.0 * (1.0 - tf.square(tf.tanh(w)))
