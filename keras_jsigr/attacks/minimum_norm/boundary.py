"""Linearized boundaries between the class to leave and its rivals."""

from __future__ import annotations

from typing import Any, NamedTuple

import tensorflow as tf

from keras_jsigr.attacks.minimum_norm.closest import lengths
from keras_jsigr.attacks.minimum_norm.linear_projection import linear_projection
from keras_jsigr.attacks.minimum_norm.rivals import label_of, rival_classes
from keras_jsigr.attacks.search.problem import Problem
from keras_jsigr.attacks.search.rows import like
from keras_jsigr.attacks.search.scaled_gradient import scaled_gradient
from keras_jsigr.attacks.search.usable_part import usable_part
from keras_jsigr.core.logits import LogitsFn, as_classes
from keras_jsigr.core.weighted_logits import weighted_logits

_SAFE = 1e-5
# A class so far below the largest logit has the probability zero in float32.
_RULED_OUT = 104.0
NO_GRADIENT = (
    "The model's outputs do not depend on its input by TensorFlow operations: got no "
    "gradient, expected one. Attack it with a method that needs none, or attack a "
    "surrogate."
)


class Boundary(NamedTuple):
    """Hold a plane per example: `<weights, z - point> + gap = 0`.

    Attributes:
        weights: Float32 or float64 `(B, *S)`, the gradient of `z_rival - z_label`.
        gap: Same dtype, `(B,)`, the difference `z_rival - z_label` at the point, less
            the margin that makes it safe.
        finite: Bool `(B,)`: all gradients were finite; zeros stand for the others.
    """

    weights: tf.Tensor
    gap: tf.Tensor
    finite: tf.Tensor


def nearest_boundary(
    logits_fn: LogitsFn,
    problem: Problem,
    point: tf.Tensor,
    rivals: tf.Tensor | None,
    input_range: tuple[float, float],
    norm: str,
) -> Boundary:
    """Linearize the logits and return the plane of the nearest rival.

    The nearest has the shortest way from the point to its plane, within the range;
    where that ends before the plane, it is taken as long as at the same pace it would
    be. With room enough this is `argmin_k |z_k - z_y| / ||grad (z_k - z_y)||_q` with
    the dual norm `q`. One forward pass and one backward pass per rival; only the best
    is kept.

    Args:
        logits_fn: Maps inputs to float logits `(B, C)`.
        problem: The batch.
        point: Float32 or float64 `(B, *S)`, where to linearize.
        rivals: Int32 `(B, K)` from `rival_classes`, `K >= 1` static; `None`: the other
            class with the largest logit at the point.
        input_range: `(low, high)` in input units.
        norm: `"linf"`, `"l2"` or `"l1"`: what distances are measured in.

    Returns:
        The boundary; without weights where no gradient is left.

    Raises:
        ValueError: If the model has no gradient.

    Reference:
        arXiv 1511.04599, algorithm 2; arXiv 1907.02044, eq. 4.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.attacks.minimum_norm.boundary import nearest_boundary
        >>> from keras_jsigr.attacks.search.problem import Problem
        >>> x, rivals = tf.constant([[0.75, 0.5]]), tf.constant([[1]])
        >>> problem = Problem(x, tf.constant([[1.0, 0.0]]))
        >>> plane = nearest_boundary(lambda x: x, problem, x, rivals, (0.0, 1.0), "l2")
        >>> plane.weights.numpy().tolist(), plane.gap.numpy().tolist()
        ([[-1.0, 1.0]], [-0.2500075101852417])
    """
    with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
        tape.watch(point)
        logits = as_classes(problem.logits(logits_fn, point))
    classes = logits.shape[-1]
    label = tf.one_hot(label_of(problem.targets), classes)

    def plane(rival: tf.Tensor) -> Boundary:
        difference = tf.one_hot(rival, classes) - label
        gradient = scaled_gradient(tape, logits, point, difference)
        if gradient is None:
            raise ValueError(NO_GRADIENT)
        gradient = tf.ensure_shape(gradient, point.shape)
        gap = weighted_logits(logits, difference) - safe_margin(logits)
        weights, healthy = usable_part(gradient)
        # No boundary with a class that is ruled out.
        there = tf.math.is_finite(gap)
        weights = tf.where(like(there, weights), weights, tf.zeros_like(weights))
        gap = tf.where(there, gap, tf.zeros_like(gap))
        return Boundary(weights, tf.cast(gap, point.dtype), healthy)

    if rivals is None:
        rivals = rival_classes(logits, problem.targets, 1)
    if rivals.shape[-1] == 1:
        return plane(rivals[:, 0])

    def body(number: tf.Tensor, best: Boundary, nearest: tf.Tensor) -> Any:
        new = plane(rivals[:, number])
        distance = _distance(new, point, input_range, norm)
        take = distance < nearest
        weights = tf.where(like(take, point), new.weights, best.weights)
        best = Boundary(
            tf.ensure_shape(weights, point.shape),
            tf.where(take, new.gap, best.gap),
            best.finite & new.finite,
        )
        return number + 1, best, tf.where(take, distance, nearest)

    each = tf.zeros(tf.shape(point)[:1], point.dtype)
    nothing = Boundary(tf.zeros_like(point), each, each == 0)
    count = rivals.shape[-1]
    best: Boundary
    _, best, _ = tf.while_loop(
        lambda number, *_: number < count,
        body,
        (tf.constant(0), nothing, each + float("inf")),
        maximum_iterations=count,
    )
    return best


def _distance(
    plane: Boundary, point: tf.Tensor, input_range: tuple[float, float], norm: str
) -> tf.Tensor:
    foot = linear_projection(point, plane.weights, plane.gap, input_range, norm)
    length = lengths(foot - point, norm)
    gained = tf.abs(plane.gap) - tf.abs(value_at(plane, point, foot))
    share = tf.math.divide_no_nan(gained, tf.abs(plane.gap))
    infinite = tf.fill(tf.shape(length), tf.constant(float("inf"), length.dtype))
    return tf.where(share > 0, tf.math.divide_no_nan(length, share), infinite)


def value_at(plane: Boundary, point: tf.Tensor, z: tf.Tensor) -> tf.Tensor:
    """Compute the linear function of a plane elsewhere.

    `<weights, z - point> + gap`.

    Args:
        plane: The boundary, linearized at `point`.
        point: Float32 or float64 `(B, *S)`.
        z: Like `point`.

    Returns:
        Same dtype, `(B,)`.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.attacks.minimum_norm.boundary import Boundary, value_at
        >>> w, gap = tf.constant([[2.0]]), tf.constant([-1.0])
        >>> plane = Boundary(w, gap, tf.constant([True]))
        >>> float(value_at(plane, tf.constant([[0.0]]), tf.constant([[1.0]]))[0])
        1.0
    """
    axes = list(range(1, point.shape.rank))
    return plane.gap + tf.reduce_sum(plane.weights * (z - point), axes)


def safe_margin(logits: tf.Tensor) -> tf.Tensor:
    """Compute the least margin of a fooling point, `1e-5 * max_j |z_j|`.

    Sums in another order, as in another batch size, change the last digits of float32:
    a point on the boundary itself would be right again. Classes that a model rules out,
    as by a logit of -1e9, do not count: their digits are in no sum.

    Args:
        logits: Float32 `(B, C)`.

    Returns:
        Float32 `(B,)`.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.attacks.minimum_norm.boundary import safe_margin
        >>> safe_margin(tf.constant([[-20.0, 10.0]])).numpy().round(6).tolist()
        [0.00019999999494757503]
    """
    top = tf.reduce_max(logits, axis=-1, keepdims=True)
    counts = tf.math.is_finite(logits) & (logits >= top - _RULED_OUT)
    sizes = tf.where(counts, tf.abs(logits), tf.zeros_like(logits))
    return _SAFE * tf.reduce_max(sizes, axis=-1)
