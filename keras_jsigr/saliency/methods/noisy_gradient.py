"""Statistics of the gradient around an example."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from keras_jsigr.core import settings
from keras_jsigr.core.linear_front import Front
from keras_jsigr.core.map_each import map_each
from keras_jsigr.saliency.gradient import input_gradient
from keras_jsigr.saliency.methods.attribution import AttributionMethod
from keras_jsigr.saliency.methods.chunks import as_rows, check_chunk, sum_in_chunks


@dataclass(frozen=True, kw_only=True)
class NoisyGradient(AttributionMethod):
    """A statistic of the gradients at `x + xi_s`, `xi_s ~ N(0, sigma^2)`.

    Every example meets the same `samples` draws `xi_s`, each from its own seed: a map
    depends neither on the batch that the example is in nor on `chunk`.

    Args:
        samples: Number of draws.
        noise: Sigma as a share of the input range.
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
    """

    samples: int = 50
    noise: float = 0.15
    input_range: tuple[float, float] = (0.0, 1.0)
    seed: int = 0
    chunk: int | None = None

    def __post_init__(self) -> None:
        """Check the settings."""
        super().__post_init__()
        settings.count("samples", self.samples)
        settings.number("noise", self.noise, minimum=0.0)
        settings.count("seed", self.seed, minimum=0)
        check_chunk(self.chunk)
        low, high = self.input_range
        settings.number("width of input_range", high - low, minimum=0.0)

    def sum_over_noise(
        self,
        front: Front,
        x: tf.Tensor,
        targets: tf.Tensor,
        statistic: Callable[[tf.Tensor], Any],
        like: Any,
    ) -> Any:
        """Add up a statistic of the gradients at the front over all draws.

        Args:
            front: Maps inputs to logits `(B, C)` in inference mode.
            x: Float data `(B, *S)`.
            targets: Float `(B, C)`.
            statistic: Maps gradients `(k, B, *F)` with respect to the features of the
                front, float32, to their sums `(B, *F)`.
            like: Tensors of the shapes and dtypes of the sums.

        Returns:
            The sums, structured as `like`.
        """
        low, high = self.input_range
        sigma = self.noise * (high - low)

        def draw(sample: tf.Tensor) -> tf.Tensor:
            seed = tf.random.experimental.stateless_fold_in(
                [0, self.seed], sample, alg="philox"
            )
            return tf.random.stateless_normal(x.shape[1:], seed, alg="philox")

        features = front.features(x)

        def part(first: tf.Tensor, size: tf.Tensor) -> Any:
            noise = map_each(draw, tf.range(first, first + size), x.shape[1:])
            noise = front.moved(tf.cast(sigma * noise, x.dtype))[:, tf.newaxis]
            gradient = input_gradient(
                lambda copies: front.logits(copies, x),
                as_rows(features[tf.newaxis] + noise),
                tf.tile(targets, (size, 1)),
                self.score,
                self.known_kind,
            )
            shape = tf.concat([[size], tf.shape(features)], axis=0)
            return statistic(tf.reshape(tf.cast(gradient, tf.float32), shape))

        return sum_in_chunks(self.samples, x, part, like, self.chunk)
