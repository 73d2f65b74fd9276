"""Norms of the input-output Jacobian by reverse-mode products."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import tensorflow as tf

ForwardFn = Callable[[list[Any]], Any]


def random_tangents(
    inputs: list[Any], weights: list[Any] | None, seed: Any
) -> list[Any]:
    """Draw `w^(1/2) xi`, `xi ~ N(0, I)`, one direction per example."""
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


# Input gradients of float16 networks are often below 6e-8, the smallest float16
# number. Cotangents are therefore multiplied by a power of two on the way in and the
# gradients divided by it on the way out, in float32: exact where nothing underflows.
FLOAT16_PRESCALE = 256.0


@dataclass(frozen=True)
class Linearization:
    """The network at one batch of inputs, seen as `z + J dx`.

    Attributes:
        inputs: The inputs that are regularized, float, each `(B, *S)`.
        logits: The recorded logits `(B, C)`.
        tape: The tape that watched exactly `inputs`; persistent if several products
            are asked for.
        unit: Width of the input range: gradients are per unit of the range, so that a
            penalty weight means the same for inputs in 0..1 and in 0..255.
    """

    inputs: list[Any]
    logits: Any
    tape: tf.GradientTape
    unit: float = 1.0

    def vjp(self, cotangent: Any) -> list[Any]:
        """Compute `v^T J` for every example.

        Args:
            cotangent: Float32 `(B, C)`, one `v` per example.

        Returns:
            For every regularized input a float32 tensor in the input's shape.

        Example:
            >>> import tensorflow as tf
            >>> from keras_jsigr.penalties.jacobian import Linearization
            >>> x = tf.ones((1, 2))
            >>> with tf.GradientTape(watch_accessed_variables=False) as tape:
            ...     tape.watch(x)
            ...     z = x * tf.constant([2.0, 3.0])
            >>> Linearization([x], z, tape).vjp(tf.ones((1, 2)))[0].numpy().tolist()
            [[2.0, 3.0]]
        """
        scale = FLOAT16_PRESCALE if self.logits.dtype == tf.float16 else 1.0
        gradients = self.tape.gradient(
            self.logits,
            self.inputs,
            output_gradients=tf.cast(cotangent * scale, self.logits.dtype),
            unconnected_gradients=tf.UnconnectedGradients.ZERO,
        )
        return [
            tf.cast(tf.convert_to_tensor(g), tf.float32) * (self.unit / scale)
            for g in gradients
        ]


def per_example_sum(values: list[Any], weights: list[Any] | None = None) -> Any:
    """Sum over everything but the batch: `sum_i w_bi a_bi`."""
    if weights is not None:
        values = [value * weight for value, weight in zip(values, weights, strict=True)]
    return tf.add_n(
        [
            tf.reduce_sum(value, axis=list(range(1, value.shape.rank)))
            for value in values
        ]
    )


NormName = Literal["squared", "l1"]


NORMS: tuple[str, ...] = get_args(NormName)


def safe_sqrt(x: Any) -> Any:
    """Compute `sqrt(x)` with derivative zero, not infinity, at `x = 0`."""
    positive = x > 0
    return tf.where(positive, tf.sqrt(tf.where(positive, x, tf.ones_like(x))), 0.0)


def random_cotangent(logits: Any, seed: Any, norm: NormName) -> Any:
    """Draw one direction `v` per example in logit space."""
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
    """Turn gradients into per-entry terms: `g^2`, or `l1_factor |g|`."""
    if norm == "squared":
        return [tf.square(g) for g in gradients]
    return [tf.abs(g) * l1_factor for g in gradients]


def reduce_terms(
    terms: list[Any], norm: NormName, weights: list[Any] | None = None
) -> Any:
    """Sum terms to a penalty per example: `1/2 sum w g^2`, or `sum w |g|`."""
    return per_example_sum(terms, weights) * (0.5 if norm == "squared" else 1.0)


def projected_guided(
    linearization: Linearization,
    cotangent: Any,
    seed: Any,
    *,
    spread: float,
    norm: NormName = "l1",
) -> list[Any]:
    """Compute per-entry terms from one projection near the direction of the score."""
    noise = random_cotangent(linearization.logits, seed, "l1")
    return gradient_terms(linearization.vjp(cotangent + spread * noise), norm)


def exact_guided(
    linearization: Linearization,
    cotangent: Any,
    *,
    spread: float,
    norm: NormName = "l1",
) -> list[Any]:
    """Compute the expectation of the terms of `projected`, from all C rows."""
    means = linearization.vjp(cotangent)
    deviations = [spread * c for c in exact(linearization, "l1")]
    pairs = zip(means, deviations, strict=True)
    if norm == "squared":
        return [tf.square(mean) + tf.square(deviation) for mean, deviation in pairs]
    return [folded_normal_mean(mean, deviation) for mean, deviation in pairs]


def folded_normal_mean(mean: Any, deviation: Any) -> Any:
    """Compute `E|v|` of a normal `v`."""
    spreads = deviation > 0
    ratio = mean / (math.sqrt(2.0) * tf.where(spreads, deviation, 1.0))
    folded = deviation * math.sqrt(2.0 / math.pi) * tf.exp(-tf.square(ratio))
    return tf.where(spreads, folded + mean * tf.math.erf(ratio), tf.abs(mean))
