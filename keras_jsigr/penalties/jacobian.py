"""Norms of the input-output Jacobian by reverse-mode products."""

from __future__ import annotations

import math
from typing import Any, Literal, get_args

import tensorflow as tf

from keras_jsigr.penalties.linearization import Linearization, per_example_sum

NormName = Literal["squared", "l1"]
NORMS: tuple[str, ...] = get_args(NormName)


def safe_sqrt(x: Any) -> Any:
    """Compute `sqrt(x)` with derivative zero, not infinity, at `x = 0`.

    Args:
        x: Non-negative float tensor.

    Returns:
        A tensor like `x`.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.penalties.jacobian import safe_sqrt
        >>> safe_sqrt(tf.constant([0.0, 4.0])).numpy().tolist()
        [0.0, 2.0]
    """
    positive = x > 0
    return tf.where(positive, tf.sqrt(tf.where(positive, x, tf.ones_like(x))), 0.0)


def random_cotangent(logits: Any, seed: Any, norm: NormName) -> Any:
    """Draw one direction `v` per example in logit space.

    Args:
        logits: Float `(B, C)`; only the shape is used.
        seed: Int32 `(2,)` for the stateless generator.
        norm: `"squared"`: `v = sqrt(C) u`, `u` uniform on the unit sphere of R^C, so
            `E[v v^T] = I`; `"l1"`: `v ~ N(0, I)`.

    Returns:
        Float32 `(B, C)`.

    Reference:
        arXiv 1908.02729, algorithm 1 (the factor C of the sphere is in `v` here).

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.penalties.jacobian import random_cotangent
        >>> v = random_cotangent(tf.zeros((5, 3)), tf.constant([0, 1]), "squared")
        >>> bool(tf.reduce_all(tf.abs(tf.norm(v, axis=1) - 3**0.5) < 1e-5))
        True
    """
    v = tf.random.stateless_normal(tf.shape(logits), seed)
    v = tf.ensure_shape(v, logits.shape)
    if norm == "l1":
        return v
    squares = tf.reduce_sum(tf.square(v), axis=-1, keepdims=True)
    return v * tf.math.rsqrt(squares + 1e-30) * math.sqrt(logits.shape[-1])


def projected(
    linearization: Linearization, seed: Any, norm: NormName = "squared"
) -> list[Any]:
    """Compute per-entry terms of a Jacobian norm from one random projection.

    With `g = v^T J` the terms are, in expectation over `v`,

    - `"squared"`: `E[g_i^2] = sum_c J_ci^2`;
    - `"l1"`: `sqrt(pi / 2) E|g_i| = ||J_:i||_2` for Gaussian `v`, whose sum over `i` is
      the L2,1 norm of the Jacobian.

    Weighted norms are sums of the terms times weights: one projection serves any
    number of them.

    Args:
        linearization: The recorded forward pass.
        seed: Int32 `(2,)`.
        norm: `"squared"` or `"l1"`.

    Returns:
        For every regularized input a float32 tensor in its shape.

    Reference:
        arXiv 1908.02729, section 3.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.penalties import Linearization, projected
        >>> x = tf.ones((1, 2))
        >>> with tf.GradientTape(watch_accessed_variables=False) as tape:
        ...     tape.watch(x)
        ...     z = 3.0 * x[:, :1]
        >>> projected(Linearization([x], z, tape), [0, 1])[0].numpy().tolist()
        [[9.0, 0.0]]
    """
    v = random_cotangent(linearization.logits, seed, norm)
    return gradient_terms(linearization.vjp(v), norm, math.sqrt(math.pi / 2.0))


def exact(linearization: Linearization, norm: NormName = "squared") -> list[Any]:
    """Compute the per-entry terms of `projected` exactly, from all C rows.

    Costs C reverse passes: for tests, for measurements and for few classes.

    Args:
        linearization: The recorded forward pass; its tape must be persistent.
        norm: `"squared"` gives `sum_c J_ci^2`, `"l1"` its square root.

    Returns:
        For every regularized input a float32 tensor in its shape.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.penalties import Linearization, exact
        >>> x = tf.ones((1, 2))
        >>> with tf.GradientTape(persistent=True) as tape:
        ...     tape.watch(x)
        ...     z = x * tf.constant([2.0, 3.0])
        >>> exact(Linearization([x], z, tape), "l1")[0].numpy().tolist()
        [[2.0, 3.0]]
    """
    classes = linearization.logits.shape[-1]
    shape = tf.shape(linearization.logits)
    rows = [
        linearization.vjp(tf.broadcast_to(tf.one_hot(c, classes), shape))
        for c in range(classes)
    ]
    squares = [
        tf.add_n([tf.square(gradient) for gradient in per_input])
        for per_input in zip(*rows, strict=True)
    ]
    return squares if norm == "squared" else [safe_sqrt(s) for s in squares]


def gradient_terms(
    gradients: list[Any], norm: NormName, l1_factor: float = 1.0
) -> list[Any]:
    """Turn gradients into per-entry terms: `g^2`, or `l1_factor |g|`.

    Args:
        gradients: Float32 tensors `(B, *S)`.
        norm: `"squared"` or `"l1"`.
        l1_factor: Factor of the absolute values.

    Returns:
        A list like `gradients`.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.penalties.jacobian import gradient_terms
        >>> gradient_terms([tf.constant([[-3.0]])], "squared")[0].numpy().tolist()
        [[9.0]]
    """
    if norm == "squared":
        return [tf.square(g) for g in gradients]
    return [tf.abs(g) * l1_factor for g in gradients]


def reduce_terms(
    terms: list[Any], norm: NormName, weights: list[Any] | None = None
) -> Any:
    """Sum terms to a penalty per example: `1/2 sum w g^2`, or `sum w |g|`.

    Args:
        terms: Per-entry terms, float32 `(B, *S)`.
        norm: The norm they were made for; squares are halved.
        weights: Optional weights that broadcast against the terms.

    Returns:
        Float32 `(B,)`.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.penalties.jacobian import reduce_terms
        >>> reduce_terms([tf.constant([[9.0, 1.0]])], "squared").numpy().tolist()
        [5.0]
    """
    return per_example_sum(terms, weights) * (0.5 if norm == "squared" else 1.0)
