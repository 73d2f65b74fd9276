"""The step of the Square attack under sums of powers: carry length between windows."""

from __future__ import annotations

from typing import Any

import tensorflow as tf


def spread(delta: tf.Tensor, epsilon: Any, power: int) -> tf.Tensor:
    """Scale perturbations to the radius: `epsilon * delta / ||delta||_p`.

    Args:
        delta: Float `(B, H, W, D)`.
        epsilon: Radius in input units.
        power: `p` of the norm, 1 or 2.

    Returns:
        Like `delta`; zero where it is zero.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.attacks.queries.square_carry import spread
        >>> delta = tf.reshape(tf.constant([3.0, 4.0]), (1, 1, 2, 1))
        >>> spread(delta, 10.0, 2).numpy().ravel().tolist()
        [6.0, 8.0]
    """
    powers = tf.reduce_sum(tf.abs(delta) ** power, axis=[1, 2, 3], keepdims=True)
    return tf.math.divide_no_nan(epsilon * delta, powers ** (1.0 / power))


def carry(
    delta: tf.Tensor,
    shape: tf.Tensor,
    window: tf.Tensor,
    other: tf.Tensor,
    signs: tf.Tensor,
    *,
    epsilon: Any,
    power: int,
) -> tf.Tensor:
    """Move the length of two windows and what is left of the budget into the first.

    Per channel, the first window gets `t / ||t||` times
    `(||delta on both windows||^p + unused / D)^(1/p)`, where `t` adds the signed
    dipole to the window's present direction and `unused = epsilon^p - ||delta||^p`;
    the second window gets zero.

    Args:
        delta: Float `(B, H, W, D)`, the perturbations.
        shape: Float `(B, H, W)`, the dipoles in place, zero outside their windows.
        window: Bool `(B, H, W, D)`, where the first windows may change.
        other: Like `window`, the second windows.
        signs: Float `(B, D)`, one or minus one.
        epsilon: Radius in input units.
        power: `p` of the norm, 1 or 2.

    Returns:
        Like `delta`, of length `epsilon` unless a channel has no pixel to change.

    Reference:
        arXiv 1912.00049, algorithm 3; arXiv 2103.01208 (one-norm).

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.attacks.queries.square_carry import carry
        >>> delta = tf.reshape(tf.constant([0.0, 4.0, 0.0]), (1, 1, 3, 1))
        >>> window = tf.constant([True, False, False])[None, None, :, None]
        >>> other = tf.constant([False, True, False])[None, None, :, None]
        >>> shape, signs = tf.constant([[[1.0, 0.0, 0.0]]]), tf.constant([[-1.0]])
        >>> carry(
        ...     delta, shape, window, other, signs, epsilon=5.0, power=2
        ... ).numpy().ravel().tolist()
        [-5.0, 0.0, 0.0]
    """
    zero = tf.zeros_like(delta)

    def measure(t: tf.Tensor) -> tf.Tensor:
        powers = tf.square(t) if power == 2 else tf.abs(t)
        return tf.reduce_sum(powers, axis=[1, 2], keepdims=True)

    def direction(t: tf.Tensor) -> tf.Tensor:
        size = measure(t)
        return tf.math.divide_no_nan(t, tf.sqrt(size) if power == 2 else size)

    used = tf.reduce_sum(measure(delta), axis=-1, keepdims=True)
    unused = tf.maximum(epsilon**power - used, 0.0) / delta.shape[-1]
    budget = measure(tf.where(window | other, delta, zero)) + unused
    mixed = signs[:, None, None] * direction(tf.where(window, shape[..., None], zero))
    mixed = direction(mixed + direction(tf.where(window, delta, zero)))
    filled = mixed * (tf.sqrt(budget) if power == 2 else budget)
    return tf.where(window, filled, tf.where(other, zero, delta))
