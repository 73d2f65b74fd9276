"""Does TensorFlow differentiate this network in forward mode? Tracing it tells."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from keras_jsigr.penalties.directional import jvp


def check_forward_mode(
    model: keras.Model, forward: Callable[[Any], Any], x: Any, index: int
) -> None:
    """Refuse a network that the estimator "jvp" cannot train, such as one with loops.

    The step is traced as `fit` does, not run.

    Args:
        model: The base model.
        forward: Function from inputs to logits.
        x: A probe batch in the model's input structure.
        index: Position of the input to differentiate for.

    Raises:
        ValueError: If TensorFlow has no derivative.
    """
    leaves = list(keras.tree.flatten(x))
    variables = list(model.trainable_variables)

    def network(inputs: list[Any]) -> Any:
        full = [*leaves[:index], *inputs, *leaves[index + 1 :]]
        return forward(keras.tree.pack_sequence_as(x, full))

    @tf.function
    def step(value: Any) -> Any:
        with tf.GradientTape() as tape:
            _, estimate = jvp(network, [value], None, [0, 1])
        return [g for g in tape.gradient(estimate, variables) if g is not None]

    try:
        step.get_concrete_function(leaves[index])
    except (TypeError, ValueError, LookupError, NotImplementedError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"TensorFlow cannot differentiate `{model.name}` in forward mode: got "
            f"{type(error).__name__} ({reason}), expected that a step traces. It "
            "has no such derivative of loops, those of recurrent layers among them: "
            "use estimator='finite_difference', or unroll=True in the layer."
        ) from error
