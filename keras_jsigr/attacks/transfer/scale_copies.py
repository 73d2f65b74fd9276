"""Scale invariance: the same image, half as bright, and half again."""

from __future__ import annotations

from typing import Any

import tensorflow as tf


def scale_copy(x: tf.Tensor, number: Any) -> tf.Tensor:
    """Compute copy `number` of the inputs, `x / 2^number`.

    A classifier's loss hardly changes along these copies, so they serve as further
    models: the attack follows `mean_i grad_x L(x / 2^i)`.

    Args:
        x: Float32 or float64 `(B, *S)`; zero is black, the point all copies run to.
        number: Integer or int32 scalar, >= 0; copy 0 is `x`.

    Returns:
        Like `x`.

    Reference:
        arXiv 1908.06281.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.attacks.transfer.scale_copies import scale_copy
        >>> scale_copy(tf.constant([[1.0]]), 3).numpy().tolist()
        [[0.125]]
    """
    return x * tf.cast(0.5, x.dtype) ** tf.cast(number, x.dtype)
