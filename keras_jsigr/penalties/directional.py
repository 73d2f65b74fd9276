"""Jacobian norms from differences along random directions of input space."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

ForwardFn = Callable[[list[Any]], Any]


def random_tangents(
    inputs: list[Any], weights: list[Any] | None, seed: Any
) -> list[Any]:
    """Draw `w^(1/2) xi`, `xi ~ N(0, I)`, one direction per example.

    Args:
        inputs: Float tensors `(B, *S)`.
        weights: Non-negative tensors that broadcast against the inputs, or `None`.
            Estimated weights that fall below zero count as zero here.
        seed: Int32 `(2,)`.

    Returns:
        Float32 tensors in the shapes of the inputs.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.penalties.directional import random_tangents
        >>> random_tangents([tf.ones((4, 2))], None, [0, 1])[0].shape
        TensorShape([4, 2])
    """
    tangents = []
    for index, x in enumerate(inputs):
        fold = tf.random.experimental.stateless_fold_in(seed, index)
        xi = tf.ensure_shape(tf.random.stateless_normal(tf.shape(x), fold), x.shape)
        if weights is not None:
            # No gradient flows into weights, so sqrt at zero is harmless.
            xi = xi * tf.stop_gradient(tf.sqrt(tf.maximum(weights[index], 0.0)))
        tangents.append(xi)
    return tangents


def finite_difference(
    forward: ForwardFn,
    inputs: list[Any],
    outputs: Any,
    weights: list[Any] | None,
    seed: Any,
    *,
    step: float = 1e-3,
    unit: float = 1.0,
) -> Any:
    """Estimate `sum_i w_i sum_c J_ci^2` without any second-order gradient.

    `||f(x + h w^(1/2) xi) - f(x)||^2 / h^2` with `xi ~ N(0, I)`: exact in expectation
    for a linear `f`, with an error of order `h` in general. It trains networks whose
    layers have no second derivative, or a wrong one.

    Args:
        forward: Traceable function from the list of inputs to outputs `(B, K)`.
        inputs: Float tensors `(B, *S)`.
        outputs: `forward(inputs)`.
        weights: Non-negative tensors that broadcast against the inputs, or `None`.
        seed: Int32 `(2,)`.
        step: Length `h` of the step in units of the input range.
        unit: Width of the input range.

    Returns:
        Float32 `(B,)`.

    Reference:
        arXiv 1905.11468, section 4 (finite differences in place of double backprop).

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.penalties import finite_difference
        >>> f = lambda inputs: inputs[0] * 2.0
        >>> x = [tf.zeros((1, 1))]
        >>> r = finite_difference(f, x, f(x), None, [0, 1])
        >>> r.shape
        TensorShape([1])
    """
    tangents = random_tangents(inputs, weights, seed)
    moved = [
        x + tf.cast(t * (step * unit), x.dtype)
        for x, t in zip(inputs, tangents, strict=True)
    ]
    difference = tf.cast(forward(moved), tf.float32) - tf.cast(outputs, tf.float32)
    return tf.reduce_sum(tf.square(difference / step), axis=-1)


def jvp(
    forward: ForwardFn,
    inputs: list[Any],
    weights: list[Any] | None,
    seed: Any,
    *,
    unit: float = 1.0,
) -> tuple[Any, Any]:
    """Estimate `sum_i w_i sum_c J_ci^2` by forward-mode differentiation.

    `||J w^(1/2) xi||^2` with `xi ~ N(0, I)`.

    Args:
        forward: Traceable function from the list of inputs to outputs `(B, K)`.
        inputs: Float tensors `(B, *S)`.
        weights: Non-negative tensors that broadcast against the inputs, or `None`.
        seed: Int32 `(2,)`.
        unit: Width of the input range.

    Returns:
        The tuple of the outputs `(B, K)` and the estimate, float32 `(B,)`.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.penalties import jvp
        >>> outputs, norm = jvp(lambda x: 2.0 * x[0], [tf.ones((1, 1))], None, [0, 1])
        >>> outputs.numpy().tolist(), norm.shape
        ([[2.0]], TensorShape([1]))
    """
    tangents = [
        tf.cast(t * unit, x.dtype)
        for x, t in zip(inputs, random_tangents(inputs, weights, seed), strict=True)
    ]
    with tf.autodiff.ForwardAccumulator(inputs, tangents) as accumulator:
        outputs = forward(inputs)
    product = accumulator.jvp(outputs, tf.UnconnectedGradients.ZERO)
    return outputs, tf.reduce_sum(tf.square(tf.cast(product, tf.float32)), axis=-1)
