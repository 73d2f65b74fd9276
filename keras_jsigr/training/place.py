"""Where a training step is taken, and the forward pass that is recorded there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import tensorflow as tf


@dataclass(frozen=True)
class Place:
    """Where a step is taken.

    Attributes:
        leaves: All inputs, flat, the regularized ones where the step is taken.
        structure: The user's `x`.
        inputs: The regularized inputs, float.
    """

    leaves: list[Any]
    structure: Any
    inputs: list[Any]


@dataclass(frozen=True)
class Point(Place):
    """A place and the recorded forward pass there.

    Attributes:
        logits: `(B, C)`, recorded in training mode.
        tape: The inner tape, or `None` for estimators that need none.
    """

    logits: Any
    tape: tf.GradientTape | None
