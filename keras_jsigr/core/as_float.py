"""Inputs as floats."""

from __future__ import annotations

from typing import Any

import tensorflow as tf


def as_float(x: Any) -> tf.Tensor:
    """Return a tensor of its own float type, integers as float32.

    Args:
        x: Array or tensor of numbers.

    Returns:
        Float tensor of the same shape.

    Example:
        >>> import numpy as np
        >>> from keras_jsigr.core.as_float import as_float
        >>> as_float(np.zeros(2, "uint8")).dtype.name
        'float32'
    """
    x = tf.convert_to_tensor(x)
    return x if x.dtype.is_floating else tf.cast(x, tf.float32)
