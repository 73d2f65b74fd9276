"""The normal of the decision boundary from decisions at random points around."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from keras_jsigr.attacks.balls.normalize import safe_normalize
from keras_jsigr.attacks.queries.draws import sum_over_draws
from keras_jsigr.attacks.search.rows import like
from keras_jsigr.attacks.search.seeds import ALGORITHM, fold_in

# Points (m * B, *S), the draws one after the other: whether they fool the model, bool
# (m * B,), and the points as the model saw them.
Ask = Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]


def decision_gradient(
    ask: Ask,
    x: tf.Tensor,
    *,
    radius: tf.Tensor,
    count: tf.Tensor,
    norm: str,
    seed: tf.Tensor,
) -> tf.Tensor:
    """Estimate the direction from the boundary into the region that fools.

    `v = mean_k (phi_k - mean phi) u_k` with `phi_k = 1` where `x + radius * u_k` fools
    the model and -1 elsewhere, and random `u_k` of Euclidean length one; if all agree,
    `mean_k phi_k u_k`. The displacements that the model saw, after clipping and
    rounding, stand for `u_k`.

    Args:
        ask: Tells whether points fool, and how the model saw them.
        x: Float `(B, *S)`, points at the boundary.
        radius: Like `x` in dtype, `(B,)`, in input units, > 0.
        count: Int32 scalar, the number of draws.
        norm: `"l2"` draws from the sphere, `"linf"` from the cube, scaled to length
            one.
        seed: Int32 `(2,)`.

    Returns:
        Like `x`; its length has no meaning.

    Reference:
        arXiv 1904.02144, eq. 9 and 16.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.attacks.queries.decision_gradient import decision_gradient
        >>> def ask(points):
        ...     return points[:, 0] > 0.0, points
        >>> v = decision_gradient(
        ...     ask,
        ...     tf.zeros((1, 2)),
        ...     radius=tf.constant([0.1]),
        ...     count=tf.constant(1000),
        ...     norm="l2",
        ...     seed=[0, 0],
        ... )
        >>> bool(v[0, 0] > 10 * abs(v[0, 1]))
        True
    """
    shape = tf.shape(x)

    def draw(
        first: tf.Tensor, size: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        many, now = tf.concat([[size], shape], axis=0), fold_in(seed, first)
        if norm == "l2":
            u = tf.random.stateless_normal(many, now, dtype=x.dtype, alg=ALGORITHM)
        else:
            u = tf.random.stateless_uniform(
                many, now, -1.0, 1.0, dtype=x.dtype, alg=ALGORITHM
            )
        flat = tf.concat([[-1], shape[1:]], axis=0)
        u = tf.reshape(safe_normalize(tf.reshape(u, flat)), many)
        fools, seen = ask(tf.reshape(x + like(radius, x) * u, flat))
        moved = tf.reshape(seen, many) - x
        phi = tf.where(tf.reshape(fools, [size, -1]), 1.0, -1.0)
        phi = tf.cast(phi, x.dtype)
        signed = moved * tf.reshape(phi, tf.concat([[size], _column(shape)], axis=0))
        return (
            tf.reduce_sum(signed, axis=0),
            tf.reduce_sum(moved, axis=0),
            tf.reduce_sum(phi, axis=0),
        )

    examples = shape[0]
    signed, moved, phi = sum_over_draws(count, examples, draw, (x, x, radius))
    mean = phi / tf.cast(count, x.dtype)
    mixed = signed - like(mean, x) * moved
    return tf.where(like(tf.abs(mean) < 1.0, x), mixed, signed)


def _column(shape: tf.Tensor) -> tf.Tensor:
    return tf.where(tf.range(tf.size(shape)) == 0, shape, 1)
