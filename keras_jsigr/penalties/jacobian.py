"""Norms of the input-output Jacobian `J = dz/dx`: estimators and the penalty."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from typing import Any, Literal, get_args

import keras
import tensorflow as tf

from keras_jsigr.core import arguments
from keras_jsigr.core.random import named_seed
from keras_jsigr.core.scores import SCORES, ScoreName, score_cotangent
from keras_jsigr.penalties.base import (
    ForwardFn,
    Linearization,
    Penalty,
    PenaltyBatch,
    per_example_sum,
    safe_sqrt,
    units,
)

NormName = Literal["squared", "l1"]
NORMS: tuple[str, ...] = get_args(NormName)
EstimatorName = Literal["random_projection", "exact", "finite_difference", "jvp"]
ESTIMATORS: tuple[str, ...] = get_args(EstimatorName)
# Estimators by vector-Jacobian products: the others take steps in input space.
REVERSE_MODE = ("random_projection", "exact")
TargetName = Literal["jacobian", "mixed", "score"]
TARGETS: tuple[str, ...] = get_args(TargetName)


def random_tangents(inputs: list[Any], weights: list[Any] | None, seed: Any) -> list[Any]:
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
    unit: Any = 1.0,
) -> Any:
    """Estimate `sum_i w_i ||J_:i||^2` by random steps (arXiv 1905.11468, section 4)."""
    tangents = random_tangents(inputs, weights, seed)
    moved = [
        x + tf.cast(t * (step * width), x.dtype)
        for x, t, width in zip(inputs, tangents, units(unit, inputs), strict=True)
    ]
    difference = tf.cast(forward(moved), tf.float32) - tf.cast(outputs, tf.float32)
    return tf.reduce_sum(tf.square(difference / step), axis=-1)


def jvp(
    forward: ForwardFn,
    inputs: list[Any],
    weights: list[Any] | None,
    seed: Any,
    *,
    unit: Any = 1.0,
) -> tuple[Any, Any]:
    """Return the outputs and `||J w^(1/2) xi||^2`, `xi ~ N(0, I)`, by forward mode."""
    tangents = [
        tf.cast(t * width, x.dtype)
        for x, t, width in zip(
            inputs,
            random_tangents(inputs, weights, seed),
            units(unit, inputs),
            strict=True,
        )
    ]
    with tf.autodiff.ForwardAccumulator(inputs, tangents) as accumulator:
        outputs = forward(inputs)
    product = accumulator.jvp(outputs, tf.UnconnectedGradients.ZERO)
    return outputs, tf.reduce_sum(tf.square(tf.cast(product, tf.float32)), axis=-1)


def random_cotangent(logits: Any, seed: Any, norm: NormName) -> Any:
    """Draw one direction `v` per example in logit space."""
    v = tf.random.stateless_normal(tf.shape(logits), seed)
    v = tf.ensure_shape(v, logits.shape)
    if norm == "l1":
        return v
    squares = tf.reduce_sum(tf.square(v), axis=-1, keepdims=True)
    return v * tf.math.rsqrt(squares + 1e-30) * math.sqrt(logits.shape[-1])


def projected(linearization: Linearization, seed: Any, norm: NormName = "squared") -> list[Any]:
    """Compute terms unbiased for `||J_:i||^2` or `||J_:i||` (arXiv 1908.02729)."""
    v = random_cotangent(linearization.logits, seed, norm)
    return gradient_terms(linearization.vjp(v), norm, math.sqrt(math.pi / 2.0))


def exact(linearization: Linearization, norm: NormName = "squared") -> list[Any]:
    """Compute the per-entry terms of `projected` exactly, from all C rows."""
    classes = linearization.logits.shape[-1]
    shape = tf.shape(linearization.logits)
    rows = [
        linearization.vjp(tf.broadcast_to(tf.one_hot(c, classes), shape)) for c in range(classes)
    ]
    squares = [
        tf.add_n([tf.square(gradient) for gradient in per_input])
        for per_input in zip(*rows, strict=True)
    ]
    return squares if norm == "squared" else [safe_sqrt(s) for s in squares]


def gradient_terms(gradients: list[Any], norm: NormName, l1_factor: float = 1.0) -> list[Any]:
    """Turn gradients into per-entry terms: `g^2`, or `l1_factor |g|`."""
    if norm == "squared":
        return [tf.square(g) for g in gradients]
    return [tf.abs(g) * l1_factor for g in gradients]


def reduce_terms(terms: list[Any], norm: NormName, weights: list[Any] | None = None) -> Any:
    """Sum terms to a penalty per example: `1/2 sum w g^2`, or `sum w |g|`."""
    return per_example_sum(terms, weights) * (0.5 if norm == "squared" else 1.0)


def projected_mixed(
    linearization: Linearization,
    cotangent: Any,
    seed: Any,
    *,
    std: float,
    norm: NormName = "l1",
) -> list[Any]:
    """Compute per-entry terms from one projection near the direction of the score."""
    noise = random_cotangent(linearization.logits, seed, "l1")
    return gradient_terms(linearization.vjp(cotangent + std * noise), norm)


def exact_mixed(
    linearization: Linearization,
    cotangent: Any,
    *,
    std: float,
    norm: NormName = "l1",
) -> list[Any]:
    """Compute the expectation of the terms of `projected`, from all C rows."""
    means = linearization.vjp(cotangent)
    deviations = [std * c for c in exact(linearization, "l1")]
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


def directional_norm(
    linearization: Linearization,
    seeds: list[Any],
    estimator: EstimatorName,
    weights: list[Any] | None = None,
    outputs_of: Callable[[Any], Any] = lambda logits: logits,
) -> Any:
    """Estimate `1/2 sum_i w_i ||J_:i||^2` of `outputs_of(logits)` by one direction."""
    forward, inputs = linearization.forward, linearization.inputs
    if forward is None:
        raise ValueError(
            f"estimator={estimator!r} asks the network at other inputs: got a "
            "linearization without `forward`. Pass forward=<inputs to logits>."
        )

    def outputs(moved: list[Any]) -> Any:
        return outputs_of(forward(moved))

    unit, values = linearization.unit, []
    for seed in seeds:
        if estimator == "jvp":
            values.append(jvp(outputs, inputs, weights, seed, unit=unit)[1])
            continue
        here = outputs_of(linearization.inference_logits())
        values.append(finite_difference(outputs, inputs, here, weights, seed, unit=unit))
    return 0.5 * tf.add_n(values) / len(values)


class JacobianPenalty(Penalty):
    """What penalties have in common that estimate terms of the Jacobian."""

    def __init__(
        self,
        weight: float,
        name: str,
        *,
        target: TargetName = "jacobian",
        norm: NormName = "l1",
        estimator: EstimatorName = "random_projection",
        num_projections: int = 1,
        projection_std: float = 0.2,
        class_score: ScoreName = "log_prob",
    ) -> None:
        super().__init__(weight, name)
        arguments.choice("target", target, TARGETS)
        arguments.choice("norm", norm, NORMS)
        arguments.choice("estimator", estimator, ESTIMATORS)
        arguments.choice("class_score", class_score, SCORES)
        if estimator not in REVERSE_MODE and (norm != "squared" or target == "mixed"):
            raise ValueError(
                f"estimator={estimator!r} sees squares of whole columns only: got "
                f"norm={norm!r} and target={target!r}, expected norm='squared' and "
                f"target='jacobian' or 'score'. Else take one of {REVERSE_MODE}."
            )
        self.target: TargetName = target
        self.norm: NormName = norm
        self.estimator: EstimatorName = estimator
        self.num_projections = arguments.count("num_projections", num_projections)
        self.projection_std = arguments.number("projection_std", projection_std, minimum=0.0)
        self.class_score: ScoreName = class_score

    @property
    def needs_gradients(self) -> bool:  # type: ignore[override]
        """Whether the estimator is one by vector-Jacobian products."""
        return self.estimator in REVERSE_MODE

    def terms(self, linearization: Linearization, batch: PenaltyBatch) -> list[Any]:
        """Compute the per-entry terms of the norm; equal penalties share them."""
        if self.target == "score":
            gradients = linearization.score_gradient(batch, self.class_score)
            return gradient_terms(gradients, self.norm)
        found: list[Any] = linearization.shared(
            self._key, lambda: self._projected(linearization, batch)
        )
        return found

    def products(self, classes: int) -> dict[Hashable, int]:
        """Count the vector-Jacobian products."""
        if not self.needs_gradients:
            return {}
        if self.target == "score":
            return {("score_gradient", self.class_score): 1}
        count = self.num_projections
        if self.estimator == "exact":  # the mixed target has a mean beside the C rows
            count = classes + (self.target == "mixed")
        return {self._key: count}

    @property
    def _key(self) -> Hashable:
        own = (self.target, self.norm, self.estimator, self.num_projections)
        mixed = self.target == "mixed"
        return (*own, (self.projection_std, self.class_score) if mixed else None)

    def _projected(self, linearization: Linearization, batch: PenaltyBatch) -> list[Any]:
        norm, mixed = self.norm, self.target == "mixed"
        if self.estimator == "exact" and not mixed:
            return exact(linearization, norm)
        seeds = self.seeds(batch)
        if mixed:
            logits = tf.cast(linearization.logits, tf.float32)
            score = score_cotangent(logits, batch.targets, self.class_score, batch.kind)
            std = self.projection_std
            if self.estimator == "exact":
                return exact_mixed(linearization, score, std=std, norm=norm)
            draws = [
                projected_mixed(linearization, score, seed, std=std, norm=norm) for seed in seeds
            ]
        else:
            draws = [projected(linearization, seed, norm) for seed in seeds]
        return [tf.add_n(list(t)) / len(draws) for t in zip(*draws, strict=True)]

    def seeds(self, batch: PenaltyBatch, first: int = 0) -> list[Any]:
        """Return the seeds of the random projections of a step."""
        numbers = range(first, first + self.num_projections)
        return [named_seed(batch.seed, "projections", number) for number in numbers]

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {
            **super().get_config(),
            "target": self.target,
            "norm": self.norm,
            "estimator": self.estimator,
            "num_projections": self.num_projections,
            "projection_std": self.projection_std,
            "class_score": self.class_score,
        }


@keras.saving.register_keras_serializable(package="keras_jsigr")
class JacobianNorm(JacobianPenalty):
    """The norm `R_J` of the Jacobian of the logits, for a network that is flat nearby.

    Args:
        weight, name: As in `Penalty`.
        target: `"jacobian"` or `"mixed"`, with the formulas of `JSIGRConfig`.
        norm, estimator, num_projections, projection_std, class_score: As in
            `JSIGRConfig`; the last two are for `target="mixed"`.

    Raises:
        ValueError: If a setting is unknown or two exclude each other.

    Reference:
        arXiv 1908.02729 (random projections).

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.penalties import *
        >>> x = tf.ones((1, 2))
        >>> with tf.GradientTape(persistent=True) as tape:
        ...     tape.watch(x)
        ...     z = x * tf.constant([2.0, 3.0])
        >>> batch = PenaltyBatch(tf.eye(1, 2), "softmax", [], [0, 1])
        >>> JacobianNorm(1.0, estimator="exact")(Linearization([x], z, tape), batch)
        <tf.Tensor: shape=(1,), dtype=float32, numpy=array([5.], dtype=float32)>
    """

    def __init__(self, weight: float, name: str = "jacobian", **settings: Any) -> None:
        super().__init__(weight, name, **settings)
        if self.target == "score":
            raise ValueError(
                "JacobianNorm penalizes all logits: got target='score', expected "
                "'jacobian' or 'mixed'. Use SelectiveInputGradient(selection='all')."
            )

    def __call__(self, linearization: Linearization, batch: PenaltyBatch) -> Any:
        """Compute the penalty of each example."""
        if not self.needs_gradients:
            seeds = self.seeds(batch)
            return directional_norm(linearization, seeds, self.estimator)
        return reduce_terms(self.terms(linearization, batch), self.norm)
