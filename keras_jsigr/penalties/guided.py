"""One product with the Jacobian for both its norm and the gradient of the score."""

from __future__ import annotations

import math
from typing import Any

import tensorflow as tf

from keras_jsigr.penalties import jacobian
from keras_jsigr.penalties.linearization import Linearization


def projected(
    linearization: Linearization,
    cotangent: Any,
    seed: Any,
    *,
    spread: float,
    norm: jacobian.NormName = "l1",
) -> list[Any]:
    """Compute per-entry terms from one projection near the direction of the score.

    With `g = (ds/dz + spread xi)^T J`, `xi ~ N(0, I)`, every `g_i` is normal with the
    mean `ds/dx_i` and the standard deviation `spread ||J_:i||_2`. The terms are `|g_i|`
    (`norm="l1"`), in expectation at least `|ds/dx_i|`, or `g_i^2` (`"squared"`), in
    expectation `(ds/dx_i)^2 + spread^2 ||J_:i||^2`.

    Args:
        linearization: The recorded forward pass.
        cotangent: `ds/dz` of the class score, float32 `(B, C)`.
        seed: Int32 `(2,)`.
        spread: Standard deviation of the noise in logit space, >= 0.
        norm: `"squared"` or `"l1"`.

    Returns:
        For every regularized input a float32 tensor in its shape.

    Reference:
        The random projections of arXiv 1908.02729, moved to the score's direction.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.penalties import Linearization, guided
        >>> x = tf.ones((1, 2))
        >>> with tf.GradientTape(watch_accessed_variables=False) as tape:
        ...     tape.watch(x)
        ...     z = x * tf.constant([2.0, 3.0])
        >>> lin, ds_dz = Linearization([x], z, tape), tf.constant([[1.0, 0.0]])
        >>> guided.projected(lin, ds_dz, [0, 1], spread=0.0)[0].numpy().tolist()
        [[2.0, 0.0]]
    """
    noise = jacobian.random_cotangent(linearization.logits, seed, "l1")
    return jacobian.gradient_terms(linearization.vjp(cotangent + spread * noise), norm)


def exact(
    linearization: Linearization,
    cotangent: Any,
    *,
    spread: float,
    norm: jacobian.NormName = "l1",
) -> list[Any]:
    """Compute the expectation of the terms of `projected`, from all C rows.

    For `norm="l1"`, with `s = ds/dx_i` and `t = spread ||J_:i||_2`, the mean of a
    folded normal distribution:
    `t sqrt(2 / pi) exp(-s^2 / 2 t^2) + s erf(s / (sqrt(2) t))`.

    Args:
        linearization: The recorded forward pass; its tape must be persistent.
        cotangent: `ds/dz` of the class score, float32 `(B, C)`.
        spread: Standard deviation of the noise in logit space, >= 0.
        norm: `"squared"` or `"l1"`.

    Returns:
        For every regularized input a float32 tensor in its shape.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.penalties import Linearization, guided
        >>> x = tf.ones((1, 2))
        >>> with tf.GradientTape(persistent=True) as tape:
        ...     tape.watch(x)
        ...     z = x * tf.constant([2.0, 3.0])
        >>> lin, ds_dz = Linearization([x], z, tape), tf.constant([[1.0, 0.0]])
        >>> guided.exact(lin, ds_dz, spread=1.0, norm="squared")[0].numpy().tolist()
        [[8.0, 9.0]]
    """
    means = linearization.vjp(cotangent)
    deviations = [spread * c for c in jacobian.exact(linearization, "l1")]
    pairs = zip(means, deviations, strict=True)
    if norm == "squared":
        return [tf.square(mean) + tf.square(deviation) for mean, deviation in pairs]
    return [folded_normal_mean(mean, deviation) for mean, deviation in pairs]


def folded_normal_mean(mean: Any, deviation: Any) -> Any:
    """Compute `E|v|` of a normal `v`.

    Args:
        mean: Float tensor.
        deviation: Standard deviations, float tensor like `mean`, >= 0.

    Returns:
        A tensor like `mean`; its absolute value where the deviation is 0.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.penalties.guided import folded_normal_mean
        >>> folded_normal_mean(tf.constant([-2.0]), tf.constant([0.0])).numpy().tolist()
        [2.0]
    """
    spreads = deviation > 0
    ratio = mean / (math.sqrt(2.0) * tf.where(spreads, deviation, 1.0))
    folded = deviation * math.sqrt(2.0 / math.pi) * tf.exp(-tf.square(ratio))
    return tf.where(spreads, folded + mean * tf.math.erf(ratio), tf.abs(mean))
