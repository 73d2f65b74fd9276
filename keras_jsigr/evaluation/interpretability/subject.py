"""One model and its maps, as all parts of the measurement see them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from keras_jsigr.core.finite_rows import finite_rows
from keras_jsigr.core.logits import LogitsFn
from keras_jsigr.core.scores import class_targets
from keras_jsigr.evaluation.interpretability.map_task import Floats, MapTask
from keras_jsigr.saliency.layout import Layout
from keras_jsigr.saliency.methods.explainer import Explainer


@dataclass(frozen=True, kw_only=True)
class Subject:
    """Hold a model, the examples it is explained on, and what is derived from them.

    Attributes:
        model: A Keras classifier, a hardened model or a callable.
        logits_fn: Maps inputs to its logits `(B, C)`.
        explain: Makes its maps.
        x: Float `(N, *S)`, at least one.
        y: Int64 `(N,)`, the classes explained.
        boxes: Float `(N, 4)` or `None`.
        task: The settings.
    """

    model: Any
    logits_fn: LogitsFn
    explain: Explainer
    x: npt.NDArray[Any]
    y: npt.NDArray[np.int64]
    boxes: Floats | None
    task: MapTask

    @cached_property
    def maps(self) -> Floats:
        """The maps at `x`, float32 `(N, *map_shape)`."""
        return np.asarray(self.explain(self.x, self.y))

    @cached_property
    def finite(self) -> npt.NDArray[np.bool_]:
        """Bool `(N,)`: the examples whose map is finite; only of these it says a thing.

        Ranks and peaks of NaN would be numbers like any other.
        """
        return finite_rows(self.maps)

    @property
    def layout(self) -> Layout | None:
        """What the axes of an example mean, as the method of the maps has it."""
        return self.explain.method.layout

    def probability(self, x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        """Return the probability of the classes explained.

        Args:
            x: Float `(B, *S)`.
            y: Integers `(B,)`.

        Returns:
            Float32 `(B,)`.
        """
        logits = self.logits_fn(x)
        return tf.reduce_sum(class_targets(y, logits) * tf.nn.softmax(logits), axis=-1)
