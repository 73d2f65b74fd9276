"""What all saliency methods have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Self, get_args

import tensorflow as tf

from keras_jsigr.core import settings
from keras_jsigr.core.as_float import as_float
from keras_jsigr.core.scores import HeadKind, class_targets, predicted_targets
from keras_jsigr.saliency.batched import Core
from keras_jsigr.saliency.decision import decision_of
from keras_jsigr.saliency.layout import Layout
from keras_jsigr.saliency.methods.explainer import Explainer

TargetsFn = Callable[[tf.Tensor], tf.Tensor]


@dataclass(frozen=True, kw_only=True)
class SaliencyMethod(ABC):
    """A way to explain a decision: settings, checked when it is made.

    Args:
        kind: `"softmax"` (exclusive classes) or `"sigmoid"` (independent ones);
            `None` asks the head and the loss of a Keras model, and takes a callable
            for the first.
        layout: What the axes mean where the rank would mislead, see `resolve_layout`.

    Raises:
        ValueError: If a setting is out of range.
    """

    kind: HeadKind | None = None
    layout: Layout | None = None

    def __post_init__(self) -> None:
        """Check the settings."""
        settings.choice("kind", self.kind, (None, *get_args(HeadKind)))

    @property
    def known_kind(self) -> HeadKind:
        """The kind that the maps are of: `explainer` asks the model for it."""
        return self.kind or "softmax"

    @abstractmethod
    def core(self, model: Any, probe: Any) -> Core:
        """Return the traceable function of `(x, y)` that computes the maps.

        Args:
            model: A Keras classifier, a hardened model or a callable.
            probe: A batch of float inputs, at least one.
        """

    def explainer(self, model: Any, probe: Any, batch_size: int = 128) -> Explainer:
        """Compile the method for a model.

        Args:
            model: A Keras classifier, a hardened model or a callable.
            probe: A batch of inputs, at least one.
            batch_size: Examples per compiled call.

        Returns:
            The reusable function.
        """
        probe = as_float(probe)
        method, classes = self.fitted(model, probe)
        return Explainer(method, method.core(model, probe), batch_size, classes)

    def fitted(self, model: Any, probe: Any) -> tuple[Self, int]:
        """Fill in what the decision of a model makes of the settings.

        One unit is a decision between two classes, and its `"logit"` their margin.

        Args:
            model: A Keras classifier, a hardened model or a callable.
            probe: A batch of float inputs, at least one.

        Returns:
            The method with these settings, and the number of classes.
        """
        decision = decision_of(model, probe, self.kind)
        found: dict[str, Any] = {"kind": decision.kind}
        named = getattr(self, "score", "")
        if decision.score(named) != named:
            found["score"] = decision.score(named)
        return replace(self, **found), decision.classes


def targets_of(y: tf.Tensor | None, kind: HeadKind) -> TargetsFn:
    """Return the function from logits to the targets that are to be explained.

    Args:
        y: Labels `(B,)` or `(B, C)`; `None` for the model's own decision.
        kind: `"softmax"` (exclusive classes) or `"sigmoid"` (independent ones).

    Returns:
        A function from logits `(B, C)` to float32 targets `(B, C)`. With labels it
        looks at the shape of the logits only, so a graph drops their computation.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.saliency.methods.method import targets_of
        >>> targets_of(None, "softmax")(tf.constant([[0.1, 0.9]])).numpy().tolist()
        [[0.0, 1.0]]
    """
    if y is None:
        return lambda logits: predicted_targets(logits, kind)
    return lambda logits: class_targets(y, logits)
