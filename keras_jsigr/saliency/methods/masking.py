"""Methods that watch the score while parts of the input are masked."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from keras_jsigr.core.as_float import as_float
from keras_jsigr.core.logits import as_logits
from keras_jsigr.core.padding import without_padding
from keras_jsigr.saliency.batched import Core
from keras_jsigr.saliency.layout import Layout, map_axes, resolve_layout
from keras_jsigr.saliency.methods.chunks import check_chunk
from keras_jsigr.saliency.methods.method import SaliencyMethod, targets_of
from keras_jsigr.saliency.methods.replacement import Replacement, check_replacement
from keras_jsigr.saliency.methods.target_score import (
    TargetScoreName,
    check_target_score,
    target_score,
)

# From k copies of the batch `(k B, *S)` and k to the scores `(k B,)`.
ScoreOf = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


@dataclass(frozen=True, kw_only=True)
class MaskingMethod(SaliencyMethod):
    """A method that needs no gradient of the model: forward passes only.

    Args:
        baseline: What a masked place shows: a number, `"zero"`, `"blur"` or `"mean"`.
        score: `"prob"`, `"log_prob"`, `"margin"` or `"logit"`.
        chunk: Examples that the model sees at once, see `sum_in_chunks`.
        kind: `"softmax"` (exclusive classes) or `"sigmoid"` (independent ones);
            `None` asks the head and the loss of a Keras model, and takes a callable
            for the first.
        layout: What the axes mean where the rank would mislead, see `resolve_layout`.

    Raises:
        ValueError: If a setting is out of range.
    """

    baseline: Replacement = "zero"
    score: TargetScoreName = "prob"
    chunk: int | None = None

    def __post_init__(self) -> None:
        """Check the settings."""
        super().__post_init__()
        check_replacement(self.baseline)
        check_target_score(self.score)
        check_chunk(self.chunk)

    @abstractmethod
    def maps(
        self,
        score_of: ScoreOf,
        x: tf.Tensor,
        layout: Layout,
        map_shape: tuple[int, ...],
    ) -> tf.Tensor:
        """Compute the maps.

        Args:
            score_of: Maps k copies of the batch and k to the scores.
            x: Float data `(B, *S)`.
            layout: What the axes of an example mean.
            map_shape: `(H, W)`, `(T,)` or `(D,)`.

        Returns:
            Float32 `(B, *map_shape)`.
        """

    def check(self, map_shape: tuple[int, ...]) -> None:
        """Refuse settings that do not fit the data; nothing to refuse by default.

        Args:
            map_shape: `(H, W)`, `(T,)` or `(D,)`.
        """

    def core(self, model: Any, probe: Any) -> Core:
        """Return the traceable function of `(x, y)`; see `SaliencyMethod`."""
        shape = tuple(probe.shape[1:])
        layout = resolve_layout(shape, self.layout)
        map_shape = shape[: map_axes(layout)]
        self.check(map_shape)
        beside = without_padding(model, as_logits(model, probe))

        def explain(x: tf.Tensor, y: tf.Tensor | None) -> tf.Tensor:
            x = as_float(x)
            logits_fn = beside(x)
            chosen = targets_of(y, self.known_kind)(logits_fn(x))

            def score_of(rows: tf.Tensor, copies: tf.Tensor) -> tf.Tensor:
                targets = tf.tile(chosen, (copies, 1))
                return target_score(
                    logits_fn(rows), targets, self.score, self.known_kind
                )

            return self.maps(score_of, x, layout, map_shape)

        return explain
