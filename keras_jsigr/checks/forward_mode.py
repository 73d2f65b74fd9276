"""Does TensorFlow differentiate this network in forward mode? Tracing it tells."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from keras_jsigr.checks.first_line import first_line
from keras_jsigr.checks.one_input import of_one_input
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
    variables = list(model.trainable_variables)
    network = of_one_input(forward, x, index)

    def step(value: Any) -> Any:
        with tf.GradientTape() as tape:
            _, estimate = jvp(lambda inputs: network(*inputs), [value], None, [0, 1])
        return [g for g in tape.gradient(estimate, variables) if g is not None]

    # AutoGraph wraps errors in a listing of files.
    traced = tf.function(step, autograph=False)
    try:
        traced.get_concrete_function(keras.tree.flatten(x)[index])
    except (TypeError, ValueError, LookupError, NotImplementedError) as error:
        raise ValueError(
            f"TensorFlow cannot differentiate `{model.name}` in forward mode: got "
            f"{type(error).__name__} ({first_line(error)}), expected that a "
            "step traces. It has no such derivative of loops, those of recurrent "
            "layers among them: use estimator='finite_difference', or unroll=True "
            "in the layer."
        ) from error
