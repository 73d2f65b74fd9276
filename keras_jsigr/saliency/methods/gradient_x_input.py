"""Gradient times input."""

from __future__ import annotations

from dataclasses import dataclass

import tensorflow as tf

from keras_jsigr.core.linear_front import Front
from keras_jsigr.saliency.gradient import input_gradient
from keras_jsigr.saliency.layout import Layout
from keras_jsigr.saliency.methods.attribution import AttributionMethod
from keras_jsigr.saliency.methods.method import TargetsFn


@dataclass(frozen=True, kw_only=True)
class GradientTimesInput(AttributionMethod):
    """Tell what every input value adds to the linearized score, `x ds / dx`.

    One forward and one backward pass. Values of zero get nothing, so a dark object on
    a light ground is not seen.

    Args:
        score: `"log_prob"`, `"margin"` or `"logit"`, see `class_score`.
        reduce: Whether to sum absolute values over the channels.
        kind: `"softmax"` (exclusive classes) or `"sigmoid"` (independent ones);
            `None` asks the head and the loss of a Keras model, and takes a callable
            for the first.
        layout: What the axes mean where the rank would mislead, see `resolve_layout`.

    Raises:
        ValueError: If a setting is out of range.

    Reference:
        arXiv 1605.01713.

    Example:
        >>> import numpy as np
        >>> from keras_jsigr.saliency import explain
        >>> x = np.array([[3.0, 1.0]])
        >>> explain(lambda x: 2.0 * x, x, method="gradient_x_input", score="logit")
        array([[6., 0.]], dtype=float32)
    """

    def attribution(
        self, front: Front, x: tf.Tensor, targets: TargetsFn, layout: Layout | None
    ) -> tf.Tensor:
        """Compute the products; see `AttributionMethod`."""
        del layout
        return x * input_gradient(front, x, targets, self.score, self.known_kind)
