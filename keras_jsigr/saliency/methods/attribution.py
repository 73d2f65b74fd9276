"""Methods that give every input value a signed share."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import tensorflow as tf

from keras_jsigr.core import settings
from keras_jsigr.core.as_float import as_float
from keras_jsigr.core.linear_front import Front, find_front
from keras_jsigr.core.logits import as_logits
from keras_jsigr.core.padding import without_padding
from keras_jsigr.core.scores import SCORES, ScoreName
from keras_jsigr.saliency.batched import Core
from keras_jsigr.saliency.layout import Layout, map_axes, resolve_layout
from keras_jsigr.saliency.methods.method import SaliencyMethod, TargetsFn, targets_of


@dataclass(frozen=True, kw_only=True)
class AttributionMethod(SaliencyMethod):
    """A method whose natural result has the shape of the input.

    Args:
        score: `"log_prob"`, `"margin"` or `"logit"`, see `class_score`.
        reduce: Whether to sum absolute values over the channels, which gives maps
            `(B, *map_shape)`; if not, the signed values `(B, *S)`.
        kind: `"softmax"` (exclusive classes) or `"sigmoid"` (independent ones);
            `None` asks the head and the loss of a Keras model, and takes a callable
            for the first.
        layout: What the axes mean where the rank would mislead, see `resolve_layout`.

    Raises:
        ValueError: If a setting is out of range.
    """

    # Whether the method adds up gradients of copies of an example: see `Front`.
    adds_copies: ClassVar[bool] = False

    score: ScoreName = "log_prob"
    reduce: bool = True

    def __post_init__(self) -> None:
        """Check the settings."""
        super().__post_init__()
        settings.choice("score", self.score, SCORES)
        settings.choice("reduce", self.reduce, (False, True))

    @abstractmethod
    def attribution(
        self, front: Front, x: tf.Tensor, targets: TargetsFn, layout: Layout | None
    ) -> tf.Tensor:
        """Compute the signed values.

        Args:
            front: Maps inputs to logits `(B, C)` in inference mode, and knows the
                first layer if `adds_copies`.
            x: Float data `(B, *S)`.
            targets: Makes the targets `(B, C)` from the logits at `x`.
            layout: What the axes of an example mean, if that is known.

        Returns:
            Float tensor shaped like `x`.
        """

    def core(self, model: Any, probe: Any) -> Core:
        """Return the traceable function of `(x, y)`; see `SaliencyMethod`."""
        front = Front(as_logits(model, probe))
        if self.adds_copies:
            front = find_front(model, front.logits_fn, probe)
        layout = self.layout
        if self.reduce:
            layout = resolve_layout(tuple(probe.shape[1:]), layout)
        beside = without_padding(model, front.logits_fn)

        def explain(x: tf.Tensor, y: tf.Tensor | None) -> tf.Tensor:
            x = as_float(x)
            there = replace(front, logits_fn=beside(x))
            found = self.attribution(there, x, targets_of(y, self.known_kind), layout)
            found = tf.cast(found, tf.float32)
            return sum_channels(found, layout) if self.reduce and layout else found

        return explain


def sum_channels(attribution: Any, layout: Layout) -> tf.Tensor:
    """Sum absolute values over the channels.

    Args:
        attribution: Float `(B, *map_shape)` or `(B, *map_shape, C)`.
        layout: What the axes of an example mean.

    Returns:
        `(B, *map_shape)`, non-negative.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.saliency.methods.attribution import sum_channels
        >>> sum_channels(tf.constant([[[1.0, -2.0]]]), "sequence").numpy().tolist()
        [[3.0]]
    """
    size = tf.abs(attribution)
    channels = list(range(1 + map_axes(layout), size.shape.rank))
    return tf.reduce_sum(size, channels) if channels else size
