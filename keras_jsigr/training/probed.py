"""What trying a classifier on a small batch tells of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_jsigr.checks.head_check import check_head
from keras_jsigr.core.connected_inputs import connected_inputs
from keras_jsigr.core.generic import generic_inputs, generic_weights
from keras_jsigr.core.heads import Head, find_head
from keras_jsigr.core.inputs import probe_batch, probe_size, unchanged_state
from keras_jsigr.core.keras_private import leaf_layers
from keras_jsigr.core.padding import padding_of_inputs
from keras_jsigr.penalties import PenaltySettings
from keras_jsigr.training.regularized_inputs import regularized_inputs

_PROBES = 8  # so many that a random layer rarely leaves all of them as they are


@dataclass(frozen=True)
class Probed:
    """What trying a classifier told of it.

    It is saved with a hardened model: while one is loaded its layers may not be ready
    to be called, as a lookup whose vocabulary comes later.

    Attributes:
        head: Its last activation.
        classes: The number of its logits.
        regularized: Positions of the regularized inputs among the flattened inputs.
        connected: Those of them that the logits have a gradient for.
        answers_alike: Whether training mode computes what inference mode does, as far
            as answers tell.
        padding: For each regularized input what its `Masking` layers take for padding.
    """

    head: Head
    classes: int
    regularized: tuple[int, ...]
    connected: tuple[int, ...]
    answers_alike: bool
    padding: tuple[tuple[float, ...], ...]

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config` needs beside the model."""
        layer = self.head.layer
        return {
            "head": [self.head.kind, None if layer is None else layer.name],
            "classes": self.classes,
            "regularized": list(self.regularized),
            "connected": list(self.connected),
            "answers_alike": self.answers_alike,
            "padding": [list(values) for values in self.padding],
        }

    @classmethod
    def from_config(cls, base: keras.Model, config: dict[str, Any]) -> Probed | None:
        """Return what was found of a model before it was saved.

        Args:
            base: The model, loaded.
            config: Of `get_config`.

        Returns:
            The same of this model, or `None` if several of its layers have the name of
            the head: it has to be tried again.
        """
        kind, name = config["head"]
        named = [each for each in leaf_layers(base) if each.name == name]
        if len(named) != (name is not None):
            return None
        return cls(
            head=Head(kind, *named),
            classes=int(config["classes"]),
            regularized=tuple(config["regularized"]),
            connected=tuple(config["connected"]),
            answers_alike=bool(config["answers_alike"]),
            padding=tuple(map(tuple, config["padding"])),
        )


def probed(base: keras.Model, specs: Any, settings: PenaltySettings) -> Probed:
    """Try a classifier, and leave it as it is.

    Args:
        base: A built Keras model.
        specs: Its input specs.
        settings: The objective.

    Returns:
        What was found.

    Raises:
        ValueError: If it is no classifier of one output, or regularizes its
            probabilities, or if no input can be regularized.

    Example:
        >>> import keras
        >>> from keras_jsigr.core.inputs import input_specs
        >>> from keras_jsigr.penalties import PenaltySettings
        >>> from keras_jsigr.training.probed import probed
        >>> net = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
        >>> found = probed(net, input_specs(net), PenaltySettings())
        >>> found.head.kind, found.classes, found.regularized
        ('linear', 3, (0,))
    """

    def batch(size: int) -> Any:
        return probe_batch(specs, settings.input_range, probe_size(base, size))

    with unchanged_state(base):
        head = find_head(base, batch(2))
        regularized = regularized_inputs(specs, settings.inputs)

        def logits(x: Any, training: bool = False) -> Any:
            with head.removed():
                return base(x, training=training)

        connected = connected_inputs(logits, batch(2), regularized)
        if settings.inputs is None and len(regularized) > 1:
            regularized = connected or regularized
        classes = int(logits(batch(2)).shape[-1])
        check_head(head, classes)
        padding = padding_of_inputs(base, batch(1), regularized)
        return Probed(
            head=head,
            classes=classes,
            regularized=tuple(regularized),
            connected=tuple(connected),
            answers_alike=_answers_alike(base, logits, batch(_PROBES)),
            padding=tuple(map(tuple, padding)),
        )


def _answers_alike(base: keras.Model, logits: Callable[..., Any], probe: Any) -> bool:
    """Tell whether a model answers in training mode as in inference mode."""

    def alike(x: Any) -> bool:
        return np.array_equal(np.asarray(logits(x, True)), np.asarray(logits(x, False)))

    if not alike(probe):
        return False
    # Weights that start at zero hide what comes before them.
    with generic_weights(base):
        return alike(generic_inputs(probe))
