"""Scale gradients per example without ever dividing by zero."""

from __future__ import annotations

import tensorflow as tf


def _sample_axes(x: tf.Tensor) -> list[int]:
    return list(range(1, x.shape.rank))


def _divide(x: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    return x / tf.where(size > 0, size, tf.ones_like(size))


def l2_norm(x: tf.Tensor) -> tf.Tensor:
    """Compute `||x_b||_2` per example, safe from over- and underflow of the squares.

    Args:
        x: Float32 or float64 `(B, *S)`.

    Returns:
        The norms, shape `(B, 1, ..., 1)`, dtype of `x`; zero for a zero example.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.attacks.balls.normalize import l2_norm
        >>> l2_norm(tf.constant([[3.0, 4.0], [0.0, 0.0]])).numpy().tolist()
        [[5.0], [0.0]]
    """
    axes = _sample_axes(x)
    largest = tf.reduce_max(tf.abs(x), axes, keepdims=True)
    scaled = _divide(x, largest)
    return largest * tf.sqrt(tf.reduce_sum(tf.square(scaled), axes, keepdims=True))


def safe_normalize(x: tf.Tensor) -> tf.Tensor:
    """Compute `x_b / ||x_b||_2` per example; a zero example stays zero.

    Args:
        x: Float32 or float64 `(B, *S)`.

    Returns:
        Same shape and dtype, of unit or zero norm. However small the gradient of a
        confident model is, its direction is kept.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.attacks.balls.normalize import safe_normalize
        >>> safe_normalize(tf.constant([[0.0, 2e-30], [0.0, 0.0]])).numpy().tolist()
        [[0.0, 1.0], [0.0, 0.0]]
    """
    # The largest magnitude first: the squares of 1e-30 vanish in float32.
    x = _divide(x, tf.reduce_max(tf.abs(x), _sample_axes(x), keepdims=True))
    return _divide(x, l2_norm(x))


def mean_normalize(x: tf.Tensor) -> tf.Tensor:
    """Compute `x_b / mean_i |x_bi|` per example; a zero example stays zero.

    Args:
        x: Float32 or float64 `(B, *S)`.

    Returns:
        Same shape and dtype, of mean magnitude one or zero.

    Reference:
        arXiv 1710.06081, eq. 6 (the authors' code takes the mean for the L1 norm).

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.attacks.balls.normalize import mean_normalize
        >>> mean_normalize(tf.constant([[1.0, -3.0], [0.0, 0.0]])).numpy().tolist()
        [[0.5, -1.5], [0.0, 0.0]]
    """
    return _divide(x, tf.reduce_mean(tf.abs(x), _sample_axes(x), keepdims=True))
