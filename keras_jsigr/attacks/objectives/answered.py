"""Whether logits name a class at all."""

from __future__ import annotations

import tensorflow as tf


def answered(logits: tf.Tensor) -> tf.Tensor:
    """Tell which rows name a class: none with NaN, with infinity, or without a finite.

    Minus infinity is how a model rules a class out; the others compete as ever.

    Args:
        logits: Float `(B, C)`.

    Returns:
        Bool `(B,)`.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.attacks.objectives.answered import answered
        >>> nan, inf = float("nan"), float("inf")
        >>> z = tf.constant([[1.0, -inf], [1.0, nan], [1.0, inf], [-inf, -inf]])
        >>> answered(z).numpy().tolist()
        [True, False, False, False]
    """
    infinity = float("inf")
    # A comparison with NaN is false.
    bounded = tf.reduce_all(logits < infinity, axis=-1)
    return bounded & tf.reduce_any(logits > -infinity, axis=-1)
