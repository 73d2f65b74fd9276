"""One recorded forward pass and its products with the Jacobian."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import tensorflow as tf

# Input gradients of float16 networks are often below 6e-8, the smallest float16
# number. Cotangents are therefore multiplied by a power of two on the way in and the
# gradients divided by it on the way out, in float32: exact where nothing underflows.
FLOAT16_PRESCALE = 256.0


@dataclass(frozen=True)
class Linearization:
    """The network at one batch of inputs, seen as `z + J dx`.

    Attributes:
        inputs: The inputs that are regularized, float, each `(B, *S)`.
        logits: The recorded logits `(B, C)`.
        tape: The tape that watched exactly `inputs`; persistent if several products
            are asked for.
        unit: Width of the input range: gradients are per unit of the range, so that a
            penalty weight means the same for inputs in 0..1 and in 0..255.
    """

    inputs: list[Any]
    logits: Any
    tape: tf.GradientTape
    unit: float = 1.0

    def vjp(self, cotangent: Any) -> list[Any]:
        """Compute `v^T J` for every example.

        Args:
            cotangent: Float32 `(B, C)`, one `v` per example.

        Returns:
            For every regularized input a float32 tensor in the input's shape.

        Example:
            >>> import tensorflow as tf
            >>> from keras_jsigr.penalties.linearization import Linearization
            >>> x = tf.ones((1, 2))
            >>> with tf.GradientTape(watch_accessed_variables=False) as tape:
            ...     tape.watch(x)
            ...     z = x * tf.constant([2.0, 3.0])
            >>> Linearization([x], z, tape).vjp(tf.ones((1, 2)))[0].numpy().tolist()
            [[2.0, 3.0]]
        """
        scale = FLOAT16_PRESCALE if self.logits.dtype == tf.float16 else 1.0
        gradients = self.tape.gradient(
            self.logits,
            self.inputs,
            output_gradients=tf.cast(cotangent * scale, self.logits.dtype),
            unconnected_gradients=tf.UnconnectedGradients.ZERO,
        )
        return [
            tf.cast(tf.convert_to_tensor(g), tf.float32) * (self.unit / scale)
            for g in gradients
        ]


def per_example_sum(values: list[Any], weights: list[Any] | None = None) -> Any:
    """Sum over everything but the batch: `sum_i w_bi a_bi`.

    Args:
        values: Float32 tensors `(B, *S)`.
        weights: One tensor for each of them that broadcasts against it, or `None`.

    Returns:
        Float32 `(B,)`.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.penalties.linearization import per_example_sum
        >>> per_example_sum([tf.ones((2, 3)), tf.ones((2, 1))]).numpy().tolist()
        [4.0, 4.0]
    """
    if weights is not None:
        values = [value * weight for value, weight in zip(values, weights, strict=True)]
    return tf.add_n(
        [
            tf.reduce_sum(value, axis=list(range(1, value.shape.rank)))
            for value in values
        ]
    )
