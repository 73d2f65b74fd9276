"""Integrated gradients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from keras_jsigr.core import settings
from keras_jsigr.core.linear_front import Front
from keras_jsigr.saliency.gradient import input_gradient
from keras_jsigr.saliency.layout import Layout
from keras_jsigr.saliency.methods.attribution import AttributionMethod
from keras_jsigr.saliency.methods.chunks import as_rows, check_chunk, sum_in_chunks
from keras_jsigr.saliency.methods.method import TargetsFn
from keras_jsigr.saliency.methods.replacement import (
    Replacement,
    check_replacement,
    replacement,
)

RuleName = Literal["gauss_legendre", "midpoint", "trapezoid"]
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class IntegratedGradients(AttributionMethod):
    """Share the change of the score from a baseline out among the input values.

    `(x - A) int_0^1 ds/dx (A + t (x - A)) dt`, which sums to `s(x) - s(A)`, up to the
    error of the quadrature: `steps` forward and backward passes. Not reduced, the
    values of an example add up to that difference.

    Args:
        steps: Points of the quadrature, at least 2.
        baseline: `A`: a number, `"zero"`, `"blur"` or `"mean"`.
        rule: `"gauss_legendre"` (exact for polynomials of degree `2 steps - 1`),
            `"midpoint"`, or `"trapezoid"`, whose points include both ends.
        chunk: Examples that the model sees at once, see `sum_in_chunks`.
        score: `"log_prob"`, `"margin"` or `"logit"`, see `class_score`.
        reduce: Whether to sum absolute values over the channels.
        kind: `"softmax"` (exclusive classes) or `"sigmoid"` (independent ones);
            `None` asks the head and the loss of a Keras model, and takes a callable
            for the first.
        layout: What the axes mean where the rank would mislead, see `resolve_layout`.

    Raises:
        ValueError: If a setting is out of range.

    Reference:
        arXiv 1703.01365, equation 1.

    Example:
        >>> import numpy as np
        >>> from keras_jsigr.saliency import explain
        >>> x = np.array([[3.0, 1.0]])
        >>> maps = explain(
        ...     lambda x: x**2, x, method="integrated_gradients", score="logit"
        ... )
        >>> maps.round(4).tolist()
        [[9.0, 0.0]]
    """

    adds_copies: ClassVar[bool] = True

    steps: int = 32
    baseline: Replacement = "zero"
    rule: RuleName = "gauss_legendre"
    chunk: int | None = None

    def __post_init__(self) -> None:
        """Check the settings."""
        super().__post_init__()
        settings.count("steps", self.steps, minimum=2)
        check_replacement(self.baseline)
        settings.choice("rule", self.rule, get_args(RuleName))
        check_chunk(self.chunk)

    def attribution(
        self, front: Front, x: tf.Tensor, targets: TargetsFn, layout: Layout | None
    ) -> tf.Tensor:
        """Compute the shares; see `AttributionMethod`."""
        start = replacement(x, self.baseline, layout)
        there = front.features(x)
        here = tf.broadcast_to(front.features(start), tf.shape(there))
        way = there - here
        chosen = targets(front.logits(there, x))
        points, weights = (
            tf.constant(values, tf.float32)
            for values in quadrature(self.steps, self.rule)
        )

        def part(first: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
            t = tf.reshape(points[first : first + size], (-1, *[1] * there.shape.rank))
            gradient = input_gradient(
                lambda copies: front.logits(copies, x),
                as_rows(here + tf.cast(t, there.dtype) * way),
                tf.tile(chosen, (size, 1)),
                self.score,
                self.known_kind,
            )
            rows = tf.reshape(tf.cast(gradient, tf.float32), (size, tf.size(there)))
            total = tf.linalg.matvec(rows, weights[first : first + size], True)
            return tf.reshape(total, tf.shape(there))

        like = tf.cast(there, tf.float32)
        mean = front.pull(sum_in_chunks(self.steps, x, part, like, self.chunk), x)
        return tf.cast(x - start, tf.float32) * tf.cast(mean, tf.float32)


def quadrature(steps: int, rule: RuleName) -> tuple[FloatArray, FloatArray]:
    """Return points and weights of a rule on [0, 1].

    Args:
        steps: Number of points, at least 2.
        rule: `"gauss_legendre"`, `"midpoint"` or `"trapezoid"`.

    Returns:
        Points and weights, float64 `(steps,)`; the weights sum to one.

    Example:
        >>> from keras_jsigr.saliency.methods.integrated_gradients import quadrature
        >>> points, weights = quadrature(3, "trapezoid")
        >>> points.tolist(), weights.tolist()
        ([0.0, 0.5, 1.0], [0.25, 0.5, 0.25])
    """
    if rule == "gauss_legendre":
        points, weights = np.polynomial.legendre.leggauss(steps)
        return (points + 1.0) / 2.0, weights / 2.0
    if rule == "midpoint":
        return (np.arange(steps) + 0.5) / steps, np.full(steps, 1.0 / steps)
    weights = np.full(steps, 1.0 / (steps - 1))
    weights[[0, -1]] /= 2.0
    return np.linspace(0.0, 1.0, steps), weights
