"""The gradient as a saliency method."""

from __future__ import annotations

from dataclasses import dataclass

import tensorflow as tf

from keras_jsigr.core.linear_front import Front
from keras_jsigr.saliency.gradient import input_gradient
from keras_jsigr.saliency.layout import Layout
from keras_jsigr.saliency.methods.attribution import AttributionMethod
from keras_jsigr.saliency.methods.method import TargetsFn


@dataclass(frozen=True, kw_only=True)
class Gradient(AttributionMethod):
    """Tell how fast the score changes with every input value, `ds / dx`.

    The same as `gradient_map`: one forward and one backward pass.

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
        arXiv 1312.6034.

    Example:
        >>> import numpy as np
        >>> from keras_jsigr.saliency import explain
        >>> explain(lambda x: x * [2.0, 0.0], np.ones((1, 2)), score="logit")
        array([[2., 0.]], dtype=float32)
    """

    def attribution(
        self, front: Front, x: tf.Tensor, targets: TargetsFn, layout: Layout | None
    ) -> tf.Tensor:
        """Compute the gradient; see `AttributionMethod`."""
        del layout
        return input_gradient(front, x, targets, self.score, self.known_kind)
