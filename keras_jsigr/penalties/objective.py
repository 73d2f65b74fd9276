"""The J-SIGR penalties of one batch, per example."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from keras_jsigr.core.random import named_seed
from keras_jsigr.core.scores import (
    HeadKind,
    ScoreName,
    class_score,
    score_cotangent,
    unit_pull,
)
from keras_jsigr.penalties import jacobian
from keras_jsigr.penalties.jacobian import Linearization
from keras_jsigr.penalties.selective import alignment_penalty, selection_weights
from keras_jsigr.penalties.settings import PenaltySettings


def batch_mean(per_example: Any, sample_weight: Any, over_weights: bool = False) -> Any:
    """Average a penalty over the batch as Keras averages the loss.

    `sum w_b R_b / B`, or over the weights, `sum w_b R_b / sum w_b`. A replica without
    examples, of a batch smaller than their number, has the mean 0.

    Args:
        per_example: Float32 `(B,)`.
        sample_weight: `None`, `(B,)` or `(B, 1)`; other shapes (weights of several
            outputs or of time steps) count as one.
        over_weights: Whether to divide by the sum of the weights, as losses with
            `reduction="mean_with_sample_weight"` do.

    Returns:
        Float32 scalar.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.penalties import batch_mean
        >>> float(batch_mean(tf.constant([1.0, 3.0]), tf.constant([0.0, 1.0])))
        1.5
    """
    count = tf.cast(tf.shape(per_example)[0], tf.float32)
    leaves = [w for w in keras.tree.flatten(sample_weight) if w is not None]
    if len(leaves) == 1:
        weight = tf.convert_to_tensor(leaves[0])  # NumPy in eager steps
        if weight.shape.rank == 1 or weight.shape[1:].num_elements() == 1:
            weight = tf.cast(tf.reshape(weight, (-1,)), tf.float32)
            per_example = per_example * weight
            count = tf.reduce_sum(weight) if over_weights else count
    return tf.math.divide_no_nan(tf.reduce_sum(per_example), count)


def ramp_factor(step: Any, delay_steps: Any, ramp_steps: Any) -> Any:
    """Compute the factor of the penalty weights at an optimizer step.

    `clip((step + 1 - delay) / max(ramp, 1), 0, 1)`: zero for `delay_steps` steps, then
    linear, full from step `delay_steps + ramp_steps - 1` on.

    Args:
        step: Integer scalar, 0 for the first step (`optimizer.iterations`).
        delay_steps: Integer scalar, >= 0; may be a variable.
        ramp_steps: Integer scalar, >= 0; may be a variable.

    Returns:
        Float32 scalar in 0..1.

    Example:
        >>> from keras_jsigr.penalties import ramp_factor
        >>> [float(ramp_factor(t, 1, 2)) for t in range(4)]
        [0.0, 0.5, 1.0, 1.0]
    """
    done = tf.cast(step, tf.float32) + 1.0 - tf.cast(delay_steps, tf.float32)
    return tf.clip_by_value(
        done / tf.maximum(tf.cast(ramp_steps, tf.float32), 1.0), 0.0, 1.0
    )


@dataclass(frozen=True)
class PenaltyBatch:
    """What the penalties of one batch need.

    Attributes:
        settings: The objective.
        targets: Float32 `(B, C)`.
        kind: Whether classes exclude each other (`"softmax"`) or not (`"sigmoid"`).
        maps: The perturbation map of every regularized input, float32
            `(B, *map_shape)`; empty if the settings look at no map.
        seed: Int32 `(2,)`, new for every step.
        hits: Float32 `(B,)`, whether a cached map was found, or `None`.
    """

    settings: PenaltySettings
    targets: Any
    kind: HeadKind
    maps: list[Any]
    seed: Any
    hits: Any = None

    def select(self, inputs: list[Any]) -> list[Any]:
        """Return penalty weights that broadcast against the inputs."""
        settings = self.settings
        # `all` and `random` look at no map, only at its shape.
        maps = self.maps or [_blank_map(x) for x in inputs]
        weights = [
            selection_weights(
                saliency,
                settings.selection,
                quantile=settings.quantile,
                threshold=settings.threshold,
                seed=named_seed(self.seed, "selection", index),
            )
            for index, saliency in enumerate(maps)
        ]
        return [_broadcastable(w, x) for w, x in zip(weights, inputs, strict=True)]

    def score(self, logits: Any) -> Any:
        """Return the class score `(B,)`."""
        return class_score(logits, self.targets, self.settings.score, self.kind)


def reverse_mode_penalties(
    batch: PenaltyBatch, linearization: Linearization
) -> dict[str, Any]:
    """Compute the penalties with reverse-mode products of one recorded forward pass.

    - `jacobian`: `R_J = 1/2 ||J||_F^2`; in the fused form with `norm="l1"`
      `||J||_{2,1}`, the sum over inputs of the length of their Jacobian column;
    - `selective`: `R_S = 1/2 sum_i M_i g_i^2`, or `sum_i M_i |g_i|`, with
      `g = ds/dx` of the class score (separate form) or with the same terms as
      `jacobian` (fused and guided form: one projection for both penalties, the guided
      one near the direction of the score, see `guided.projected`);
    - `align`: `1 - cos(|ds/dx|, S)`.

    Args:
        batch: Targets, maps and settings.
        linearization: The recorded forward pass; persistent unless the settings ask
            for a single product (see `products`).

    Returns:
        A dict with those of the three names that the settings ask for, float32 `(B,)`.

    Reference:
        arXiv 2207.13036 (abstract), 1908.02729, 1711.09404; design of the fused form
        in the documentation.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.penalties import *
        >>> x = tf.ones((1, 2))
        >>> with tf.GradientTape(persistent=True) as tape:
        ...     tape.watch(x)
        ...     z = x * tf.constant([2.0, 3.0])
        >>> settings = PenaltySettings(estimator="exact", selection="all")
        >>> b = PenaltyBatch(settings, tf.eye(1, 2), "softmax", [], [0, 1])
        >>> reverse_mode_penalties(b, Linearization([x], z, tape))["jacobian"].numpy()
        array([5.], dtype=float32)
    """
    settings, inputs = batch.settings, linearization.inputs
    shared = settings.form != "separate"
    penalties: dict[str, Any] = {}
    terms: list[Any] = []
    norm = settings.norm if shared else "squared"
    if settings.jacobian_weight > 0 or (shared and settings.selects):
        terms = _jacobian_terms(batch, linearization, norm)
    if settings.jacobian_weight > 0:
        penalties["jacobian"] = jacobian.reduce_terms(terms, norm)
    gradients: list[Any] = []
    if settings.align_weight > 0 or (settings.selects and not shared):
        gradients = score_gradients(batch, linearization)
    if settings.selects:
        if not shared:
            terms = jacobian.gradient_terms(gradients, settings.norm)
        penalties["selective"] = jacobian.reduce_terms(
            terms, settings.norm, batch.select(inputs)
        )
    if settings.align_weight > 0:
        per_input = [
            alignment_penalty(g, s) for g, s in zip(gradients, batch.maps, strict=True)
        ]
        penalties["align"] = tf.add_n(per_input) / len(per_input)
    return penalties


def score_gradients(batch: PenaltyBatch, linearization: Linearization) -> list[Any]:
    """Compute `ds/dx = (ds/dz)^T J` for the class score `s`."""
    pull = unit_pull(*_scored(batch, linearization))
    return [pull.scaled(gradient) for gradient in linearization.vjp(pull.rows)]


def _scored(
    batch: PenaltyBatch, linearization: Linearization
) -> tuple[Any, Any, ScoreName, HeadKind]:
    """Return what the class score is a function of."""
    logits = tf.cast(linearization.logits, tf.float32)
    return logits, batch.targets, batch.settings.score, batch.kind


def _jacobian_terms(
    batch: PenaltyBatch, linearization: Linearization, norm: jacobian.NormName
) -> list[Any]:
    settings = batch.settings
    seeds = [
        named_seed(batch.seed, "projections", k) for k in range(settings.projections)
    ]
    if settings.form == "guided":
        score = score_cotangent(*_scored(batch, linearization))
        spread = settings.spread
        if settings.estimator == "exact":
            return jacobian.exact_guided(linearization, score, spread=spread, norm=norm)
        draws = [
            jacobian.projected_guided(
                linearization, score, seed, spread=spread, norm=norm
            )
            for seed in seeds
        ]
    elif settings.estimator == "exact":
        return jacobian.exact(linearization, norm)
    else:
        draws = [jacobian.projected(linearization, seed, norm) for seed in seeds]
    return [tf.add_n(list(t)) / len(draws) for t in zip(*draws, strict=True)]


def products(settings: PenaltySettings, classes: int) -> int:
    """Count the reverse-mode products of one step (more than one: persistent tape)."""
    shared = settings.form != "separate"
    rows = settings.projections
    if settings.estimator == "exact":
        # The guided form looks at the gradient of the score beside the C rows.
        rows = classes + (settings.form == "guided")
    jacobian_products = rows * bool(
        settings.jacobian_weight > 0 or (shared and settings.selects)
    )
    score_products = settings.align_weight > 0 or (settings.selects and not shared)
    return jacobian_products + bool(score_products)


def directional_penalties(
    batch: PenaltyBatch,
    forward: jacobian.ForwardFn,
    inputs: list[Any],
    logits: Any,
    *,
    weights: dict[str, Any],
    unit: float = 1.0,
) -> dict[str, Any]:
    """Compute the squared penalties along random directions of input space.

    The fused form draws one direction for both terms, `w = lambda_J + lambda_S M`,
    and returns the weighted sum under the name `fused`; the separate form returns
    `jacobian` and `selective` as `reverse_mode_penalties` does.

    Args:
        batch: Targets, maps and settings.
        forward: Traceable function from the regularized inputs to logits `(B, C)`,
            without side effects (inference mode).
        inputs: The regularized inputs.
        logits: `forward(inputs)`.
        weights: `lambda_J` and `lambda_S` by the names `jacobian` and `selective`,
            for the fused form.
        unit: Width of the input range.

    Returns:
        A dict of float32 `(B,)`.
    """
    settings = batch.settings
    selected = batch.select(inputs) if settings.selects else None

    def estimate(fn: jacobian.ForwardFn, outputs: Any, weights: Any, k: int) -> Any:
        values = []
        for number in range(k * settings.projections, (k + 1) * settings.projections):
            seed = named_seed(batch.seed, "projections", number)
            if settings.estimator == "jvp":
                values.append(jacobian.jvp(fn, inputs, weights, seed, unit=unit)[1])
            else:
                values.append(
                    jacobian.finite_difference(
                        fn, inputs, outputs, weights, seed, unit=unit
                    )
                )
        return 0.5 * tf.add_n(values) / len(values)

    if settings.form == "fused":
        density = [
            tf.fill(tf.shape(x), tf.cast(weights["jacobian"], tf.float32))
            for x in inputs
        ]
        if selected:
            density = [
                d + weights["selective"] * m
                for d, m in zip(density, selected, strict=True)
            ]
        return {"fused": estimate(forward, logits, density, 0)}
    penalties = {}
    if settings.jacobian_weight > 0:
        penalties["jacobian"] = estimate(forward, logits, None, 0)
    if settings.selects:
        penalties["selective"] = estimate(
            lambda xs: batch.score(forward(xs))[:, None],
            batch.score(logits)[:, None],
            selected,
            1,
        )
    return penalties


def _blank_map(x: Any) -> Any:
    """Return zeros in the shape of the map of an input: channels have no map."""
    return tf.zeros_like(x[..., 0] if x.shape.rank > 2 else x, tf.float32)


def _broadcastable(weights: Any, x: Any) -> Any:
    return weights[..., None] if weights.shape.rank < x.shape.rank else weights
