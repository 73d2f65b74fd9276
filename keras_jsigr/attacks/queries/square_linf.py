"""The moves of the Square attack under the maximum norm: paint windows."""

from __future__ import annotations

import tensorflow as tf


def stripes(u: tf.Tensor, lower: tf.Tensor, upper: tf.Tensor) -> tf.Tensor:
    """Paint vertical stripes one pixel wide, each channel at either end of its box.

    An image of a single column, as features are, gets stripes along its rows.

    Args:
        u: Float `(B, W, D)`, uniform in [0, 1); of a single column `(B, H, D)`.
        lower: Float `(B, H, W, D)`, the lowest values in the ball.
        upper: Like `lower`, the largest.

    Returns:
        Like `lower`.

    Reference:
        arXiv 1912.00049.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.attacks.queries.square_linf import stripes
        >>> box = tf.zeros((1, 2, 2, 1)), tf.ones((1, 2, 2, 1))
        >>> stripes(tf.constant([[[0.2], [0.7]]]), *box)[0, :, :, 0].numpy().tolist()
        [[0.0, 1.0], [0.0, 1.0]]
    """
    axis = 2 if lower.shape[2] == 1 else 1
    return tf.where(tf.expand_dims(u >= 0.5, axis), upper, lower)


def paint(
    x: tf.Tensor,
    lower: tf.Tensor,
    upper: tf.Tensor,
    inside: tf.Tensor,
    u: tf.Tensor,
) -> tf.Tensor:
    """Paint one window per example, each channel at either end of its box.

    Adding `2 * epsilon * sign` and projecting onto the ball, as the paper has it, sets
    the window to `x +- epsilon`, cut with the range. Signs that would change nothing
    cost a query for nothing: then one channel at random and about half of the others
    turn theirs, which is sure to change a window of one colour.

    Args:
        x: Float `(B, H, W, D)`, the points so far.
        lower: Like `x`, the lowest values in the ball.
        upper: Like `x`, the largest.
        inside: Bool `(B, H, W)`, the windows.
        u: Float `(B, 2 * D + 1)`, uniform in [0, 1).

    Returns:
        Like `x`.

    Reference:
        arXiv 1912.00049, algorithm 2.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.attacks.queries.square_linf import paint
        >>> x, inside = tf.zeros((1, 1, 2, 1)), tf.constant([[[True, False]]])
        >>> u = tf.constant([[0.9, 0.0, 0.0]])
        >>> paint(x, x - 1.0, x + 1.0, inside, u).numpy().ravel().tolist()
        [1.0, 0.0]
    """
    channels = x.shape[-1]
    up, turn = u[:, :channels] >= 0.5, u[:, channels:-1] >= 0.5
    one = tf.cast(u[:, -1] * channels, tf.int32)
    turn |= tf.one_hot(one, channels, True, False, dtype=tf.bool)
    window = inside[..., None]
    painted = tf.where(up[:, None, None], upper, lower)
    same = tf.reduce_all((painted == x) | ~window, axis=[1, 2, 3])
    up = tf.where(same[:, None] & turn, ~up, up)
    return tf.where(window, tf.where(up[:, None, None], upper, lower), x)
