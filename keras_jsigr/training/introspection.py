"""What `harden` finds out about a classifier by looking at it and calling it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_jsigr.core.heads import Head, find_head
from keras_jsigr.core.inputs import probe_batch, random_inputs_like, random_weights
from keras_jsigr.core.keras_compat import leaf_layers
from keras_jsigr.core.padding import padding_of_inputs
from keras_jsigr.core.variables import stateless
from keras_jsigr.training.validation import check_head

# Settings of Keras' random layers: a layer is deterministic where all of them are 0.
_LEVELS = ("rate", "stddev", "dropout", "recurrent_dropout")


def has_training_behavior(model: keras.Model) -> bool:
    """Tell whether some layer computes something else in training than in inference."""
    return any(_layer_has_training_behavior(layer) for layer in leaf_layers(model))


def _layer_has_training_behavior(layer: keras.Layer) -> bool:
    if not type(layer).__module__.startswith("keras."):
        return "training" in inspect.signature(layer.call).parameters
    if isinstance(layer, keras.layers.BatchNormalization):
        return bool(layer.trainable)
    parts = vars(layer).values()
    if not any(isinstance(part, keras.random.SeedGenerator) for part in parts):
        return False
    levels = [getattr(layer, name) for name in _LEVELS if hasattr(layer, name)]
    return any(levels) if levels else True


def connected_inputs(function: Callable[[Any], Any], x: Any, positions: list[int]) -> list[int]:
    """Return the positions of the inputs that the outputs have a gradient for."""
    leaves = list(keras.tree.flatten(x))
    inputs = [leaves[index] for index in positions]
    try:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(inputs)
            outputs = function(x)
        gradients = tape.gradient(outputs, inputs)
    except LookupError:
        return positions
    pairs = zip(positions, gradients, strict=True)
    return [index for index, gradient in pairs if gradient is not None]


def regularized_inputs(specs: Any, names: tuple[str, ...] | None) -> list[int]:
    """Find the positions of the inputs to regularize."""
    flat = keras.tree.flatten(specs)
    floats = {spec.name: i for i, spec in enumerate(flat) if spec.dtype.is_floating}
    if not floats:
        raise ValueError(
            f"No input can be regularized: got {[s.dtype.name for s in flat]} inputs, "
            "expected at least one of float dtype, which has a gradient. Of images "
            "and tables, give the Input dtype='float32'; of tokens, harden the part of "
            "the model that comes after the embedding."
        )
    if names is None:
        return list(floats.values())
    unknown = [name for name in names if name not in floats]
    if unknown or not names:
        raise ValueError(
            f"Inputs cannot be regularized: got {list(names)}, expected a choice of "
            f"the float inputs {list(floats)}."
        )
    return [floats[name] for name in names]


def check_connected(specs: Any, regularized: list[int], connected: list[int]) -> None:
    """Refuse to regularize an input that has no gradient."""
    names = [spec.name for spec in keras.tree.flatten(specs)]
    lost = [names[index] for index in regularized if index not in connected]
    if not lost:
        return
    left = [names[index] for index in connected]
    raise ValueError(
        f"Inputs cannot be regularized: got {lost}, for which the logits have no "
        "gradient, as for indices that an Embedding reads. "
        + (
            f"Choose the others with `harden(..., inputs={left})`."
            if left
            else "Choose others with `harden(..., inputs=[...])`, or harden the part "
            "of the model that comes after the embedding."
        )
    )


# Enough examples that a random layer rarely leaves all of them unchanged.
_PROBES = 8


@dataclass(frozen=True)
class ModelSpec:
    """What `inspect_model` found; inputs are positions among the flattened inputs."""

    head: Head
    classes: int
    regularized: tuple[int, ...]
    connected: tuple[int, ...]
    answers_alike: bool
    padding: tuple[tuple[float, ...], ...]

    def get_config(self, base: keras.Model) -> dict[str, Any]:
        """Return what `from_config` needs beside the model."""
        layer = self.head.layer
        # A subclassed model names its layers anew when it is loaded.
        place = None if layer is None else leaf_layers(base).index(layer)
        return {
            "head": [self.head.kind, None if layer is None else layer.name, place],
            "classes": self.classes,
            "regularized": list(self.regularized),
            "connected": list(self.connected),
            "answers_alike": self.answers_alike,
            "padding": [list(values) for values in self.padding],
        }

    @classmethod
    def from_config(cls, base: keras.Model, config: dict[str, Any]) -> ModelSpec | None:
        """Restore a spec; `None` if its head is no longer found in its place."""
        kind, name, *place = config["head"]
        leaves = leaf_layers(base)
        if place and name is not None:
            found = leaves[place[0] : place[0] + 1]
        else:  # a file of version 0.1.0, or no layer
            found = [each for each in leaves if each.name == name]
        if len(found) != (name is not None) or not all(_ends_in(e, kind) for e in found):
            return None
        return cls(
            head=Head(kind, *found),
            classes=int(config["classes"]),
            regularized=tuple(config["regularized"]),
            connected=tuple(config["connected"]),
            answers_alike=bool(config["answers_alike"]),
            padding=tuple(map(tuple, config["padding"])),
        )


def _ends_in(layer: keras.Layer, kind: str) -> bool:
    if isinstance(layer, keras.layers.Softmax):
        return kind == "softmax"
    return kind in getattr(getattr(layer, "activation", None), "__name__", "")


def inspect_model(
    base: keras.Model, specs: Any, input_range: Any, inputs: tuple[str, ...] | None = None
) -> ModelSpec:
    """Find a classifier's head, classes and inputs by calls on small batches."""

    def batch(size: int) -> Any:
        return probe_batch(base, specs, input_range, size)

    with stateless():
        regularized = regularized_inputs(specs, inputs)
        head = find_head(base, batch(2))

        def logits(x: Any, training: bool = False) -> Any:
            with head.removed():
                return base(x, training=training)

        connected = connected_inputs(logits, batch(2), regularized)
        if inputs is None and len(regularized) > 1:
            regularized = connected or regularized
        classes = int(logits(batch(2)).shape[-1])
        check_head(head, classes)
        padding = padding_of_inputs(base, batch(1), regularized)
        return ModelSpec(
            head=head,
            classes=classes,
            regularized=tuple(regularized),
            connected=tuple(connected),
            answers_alike=_answers_alike(base, logits, batch(_PROBES)),
            padding=tuple(map(tuple, padding)),
        )


def _answers_alike(base: keras.Model, logits: Callable[..., Any], probe: Any) -> bool:
    def alike(x: Any) -> bool:
        return np.array_equal(np.asarray(logits(x, True)), np.asarray(logits(x, False)))

    if not alike(probe):
        return False
    # Weights that start at zero hide what comes before them.
    with random_weights(base):
        return alike(random_inputs_like(probe))
