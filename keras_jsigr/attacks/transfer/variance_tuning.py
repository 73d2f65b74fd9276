"""Variance tuning: how the gradients around a point differ from the one at it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from keras_jsigr.attacks.search.seeds import ALGORITHM, fold_in
from keras_jsigr.attacks.transfer.even_step import even_step
from keras_jsigr.attacks.transfer.mean_over import mean_over

GradientFn = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


def gradient_variance(
    gradient_at: GradientFn,
    x: tf.Tensor,
    gradient: tf.Tensor,
    seed: tf.Tensor,
    *,
    radius: Any,
    samples: int = 5,
    norm: str = "linf",
    region: tf.Tensor | None = None,
) -> tf.Tensor:
    """Compute `V(x) = (1 / N) sum_i grad L(x + r_i) - gradient`.

    The `r_i` are uniform in a cube whose corners have the length `radius` in the norm;
    it is not cut to the input range. Added to the gradient of the next step, `V`
    steadies its direction.

    Args:
        gradient_at: Takes points like `x` and an int32 seed `(2,)`, returns gradients.
        x: Float32 or float64 `(B, *S)`.
        gradient: Like `x`, the gradient there.
        seed: Int32 `(2,)`.
        radius: Of the neighbourhood in input units, a number or a scalar tensor.
        samples: Number of neighbours `N`, >= 1.
        norm: The norm of the attack, `"linf"`, `"l2"` or `"l1"`.
        region: Like `x`, zero where neighbours do not differ from `x`.

    Returns:
        Like `x`.

    Reference:
        arXiv 2103.15571 (there `"linf"`).

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.attacks.transfer.variance_tuning import gradient_variance
        >>> x, seed = tf.ones((1, 2)), tf.constant([0, 0])
        >>> linear = lambda x, seed: tf.ones_like(x)  # the same gradient everywhere
        >>> gradient_variance(linear, x, tf.ones_like(x), seed, radius=1.0).numpy()
        array([[0., 0.]], dtype=float32)
    """
    side = even_step(radius, x, norm)

    def near(number: Any) -> tf.Tensor:
        stream = fold_in(seed, number)
        noise = tf.random.stateless_uniform(
            tf.shape(x), fold_in(stream, 0), -1.0, 1.0, x.dtype, alg=ALGORITHM
        )
        noise = noise if region is None else noise * region
        return gradient_at(x + side * noise, fold_in(stream, 1))

    return mean_over(samples, near, x) - gradient
