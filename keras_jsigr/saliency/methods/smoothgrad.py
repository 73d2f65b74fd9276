"""SmoothGrad."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import tensorflow as tf

from keras_jsigr.core.linear_front import Front
from keras_jsigr.saliency.layout import Layout
from keras_jsigr.saliency.methods.method import TargetsFn
from keras_jsigr.saliency.methods.noisy_gradient import NoisyGradient


@dataclass(frozen=True, kw_only=True)
class SmoothGrad(NoisyGradient):
    """Average the gradient over noisy copies, `1/n sum_s ds/dx (x + xi_s)`.

    `samples` forward and backward passes. Every example meets the same draws, so a map
    depends neither on its batch nor on `chunk`.

    Args:
        samples: Number of draws.
        noise: Standard deviation as a share of the input range.
        input_range: `(low, high)` of the inputs.
        seed: Of the draws.
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
        arXiv 1706.03825.

    Example:
        >>> import numpy as np
        >>> from keras_jsigr.saliency import explain
        >>> x = np.ones((1, 2))
        >>> explain(
        ...     lambda x: x * [2.0, 0.0], x, method="smoothgrad", score="logit"
        ... ).tolist()
        [[2.0, 0.0]]
    """

    adds_copies: ClassVar[bool] = True

    def attribution(
        self, front: Front, x: tf.Tensor, targets: TargetsFn, layout: Layout | None
    ) -> tf.Tensor:
        """Compute the mean gradient; see `AttributionMethod`."""
        del layout
        features = front.features(x)
        total = self.sum_over_noise(
            front,
            x,
            targets(front.logits(features, x)),
            lambda gradients: tf.reduce_sum(gradients, axis=0),
            tf.cast(features, tf.float32),
        )
        return front.pull(total, x) / self.samples
