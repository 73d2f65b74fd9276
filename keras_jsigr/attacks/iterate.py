"""What a step of an attack starts from."""

from __future__ import annotations

from typing import Any, NamedTuple

import tensorflow as tf


class Iterate(NamedTuple):
    """What is known in one step of the loop.

    Attributes:
        x: Float `(B, *S)`, where the step starts.
        gradient: Like `x`; of the loss to drive up, finite.
        logits: Float32 `(B, C)` at `x`, or `None` if the gradient hook did not ask the
            model there.
        targets: Float32 `(B, C)`.
        state: What `start_state` or the last `update` returned.
        step: Int32 scalar, from zero.
    """

    x: tf.Tensor
    gradient: tf.Tensor
    logits: tf.Tensor | None
    targets: tf.Tensor
    state: Any
    step: tf.Tensor
