"""Saliency imitation read literally: turn the gradient map towards the target map."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import keras
import tensorflow as tf

from keras_jsigr.core import arguments
from keras_jsigr.core.scores import SCORES, ScoreName
from keras_jsigr.penalties.base import (
    Linearization,
    Penalty,
    PenaltyBatch,
    safe_sqrt,
)


def alignment_penalty(gradients: Any, saliency: Any) -> Any:
    """Compute `1 - cos(|g|, S)` per example; one where either is all zero."""
    magnitude = tf.abs(gradients)
    target = tf.stop_gradient(tf.convert_to_tensor(saliency))
    if magnitude.shape.rank > target.shape.rank:
        magnitude = tf.reduce_sum(magnitude, axis=-1)
    axes = list(range(1, target.shape.rank))
    product = tf.reduce_sum(magnitude * target, axes)
    norms = safe_sqrt(tf.reduce_sum(tf.square(magnitude), axes)) * safe_sqrt(
        tf.reduce_sum(tf.square(target), axes)
    )
    return 1.0 - tf.math.divide_no_nan(product, norms)


@keras.saving.register_keras_serializable(package="keras_jsigr")
class SaliencyAlignment(Penalty):
    """`1 - cos(|ds/dx|, S)`: the gradient map shall look like the perturbation map.

    Args:
        weight, name: As in `Penalty`.
        class_score: The score `s`: `"log_prob"`, `"margin"` or `"logit"`.

    Reference:
        arXiv 1912.03430 (interpretation regularization by cosine).

    Example:
        >>> from keras_jsigr.penalties import SaliencyAlignment
        >>> SaliencyAlignment(0.1).needs_whole_map
        True
    """

    needs_map = True
    needs_whole_map = True

    def __init__(
        self,
        weight: float,
        name: str = "alignment",
        *,
        class_score: ScoreName = "log_prob",
    ) -> None:
        super().__init__(weight, name)
        arguments.choice("class_score", class_score, SCORES)
        self.class_score: ScoreName = class_score

    def __call__(self, linearization: Linearization, batch: PenaltyBatch) -> Any:
        """Compute the penalty of each example: the mean over the inputs."""
        gradients = linearization.score_gradient(batch, self.class_score)
        pairs = zip(gradients, batch.maps, strict=True)
        per_input = [alignment_penalty(g, saliency) for g, saliency in pairs]
        return tf.add_n(per_input) / len(per_input)

    def products(self, classes: int) -> dict[Hashable, int]:
        """Count the gradient of the score."""
        return {("score_gradient", self.class_score): 1}

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {**super().get_config(), "class_score": self.class_score}
