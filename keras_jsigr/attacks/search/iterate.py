"""What a step of an attack starts from."""

from __future__ import annotations

from typing import Any, NamedTuple

import tensorflow as tf

from keras_jsigr.attacks.search.problem import Problem


class Iterate(NamedTuple):
    """What is known in one step of the loop.

    Attributes:
        x: Float `(B, *S)`, where the step starts.
        gradient: Like `x`; of the loss to drive up, finite.
        logits: Float32 `(B, C)` at `x`, or `None` if the gradient hook did not ask the
            model there.
        problem: The inputs and labels of these examples.
        state: What `start_state` or the last `update` returned; each leaf `(B, ...)`.
        step: Int32 scalar, from zero.
    """

    x: tf.Tensor
    gradient: tf.Tensor
    logits: tf.Tensor | None
    problem: Problem
    state: Any
    step: tf.Tensor
