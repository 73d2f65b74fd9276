"""VarGrad."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from keras_jsigr.core import settings
from keras_jsigr.core.linear_front import Front
from keras_jsigr.saliency.gradient import input_gradient
from keras_jsigr.saliency.layout import Layout
from keras_jsigr.saliency.methods.method import TargetsFn
from keras_jsigr.saliency.methods.noisy_gradient import NoisyGradient


@dataclass(frozen=True, kw_only=True)
class VarGrad(NoisyGradient):
    """Compute the variance of the gradient over noisy copies, never negative.

    `1/(n - 1) sum_s (g_s - mean g)^2` with `g_s = ds/dx (x + xi_s)`: `samples + 1`
    forward and backward passes. Every example meets the same draws, so a map depends
    neither on its batch nor on `chunk`.

    Args:
        samples: Number of draws, n, at least 2.
        noise: Standard deviation as a share of the input range.
        input_range: `(low, high)` of the inputs.
        seed: Of the draws.
        chunk: Examples that the model sees at once, see `sum_in_chunks`.
        score: `"log_prob"`, `"margin"` or `"logit"`, see `class_score`.
        reduce: Whether to sum over the channels.
        kind: `"softmax"` (exclusive classes) or `"sigmoid"` (independent ones);
            `None` asks the head and the loss of a Keras model, and takes a callable
            for the first.
        layout: What the axes mean where the rank would mislead, see `resolve_layout`.

    Raises:
        ValueError: If a setting is out of range.

    Reference:
        arXiv 1810.03292, section 2.

    Example:
        >>> import numpy as np
        >>> from keras_jsigr.saliency import explain
        >>> explain(lambda x: 2.0 * x, np.ones((1, 2)), method="vargrad", score="logit")
        array([[0., 0.]], dtype=float32)
    """

    def __post_init__(self) -> None:
        """Check the settings."""
        super().__post_init__()
        settings.count("samples", self.samples, minimum=2)

    def attribution(
        self, front: Front, x: tf.Tensor, targets: TargetsFn, layout: Layout | None
    ) -> tf.Tensor:
        """Compute the variance; see `AttributionMethod`."""
        del layout
        chosen = targets(front(x))
        # Deviations from the gradient at x: their mean is small beside their spread,
        # so the difference of two sums keeps its digits.
        centre = input_gradient(front, x, chosen, self.score, self.known_kind)
        centre = tf.cast(centre, tf.float32)

        def moments(gradients: tf.Tensor) -> Any:
            away = gradients - centre
            return tf.reduce_sum(away, axis=0), tf.reduce_sum(away**2, axis=0)

        first, second = self.sum_over_noise(front, x, chosen, moments, (centre, centre))
        spread = second - first**2 / self.samples
        return tf.maximum(spread, 0.0) / (self.samples - 1)
