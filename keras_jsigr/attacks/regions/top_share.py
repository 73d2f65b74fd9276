"""The largest share of the values of each row."""

from __future__ import annotations

import tensorflow as tf


def top_share(values: tf.Tensor, share: float) -> tf.Tensor:
    """Mark the `round(share * n)` largest of the `n` values per row, at least one.

    Of equal values the first ones are taken.

    Args:
        values: Float `(B, n)`.
        share: Above 0, at most 1.

    Returns:
        Bool `(B, n)`.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.attacks.regions.top_share import top_share
        >>> top_share(tf.constant([[1.0, 3.0, 2.0, 2.0]]), 0.5).numpy().tolist()
        [[False, True, True, False]]
    """
    count = max(1, round(share * values.shape[1]))
    order = tf.argsort(values, axis=1, direction="DESCENDING", stable=True)
    return tf.argsort(order, axis=1, stable=True) < count
