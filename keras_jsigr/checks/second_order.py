"""Compare a second derivative by nested tapes with a finite difference."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_jsigr.checks.first_line import first_line

# A relative step: small enough for the difference to be a derivative, large enough
# for float64 to leave six digits of it.
_STEP = 3e-6
_TOLERANCE = 0.02


@dataclass(frozen=True)
class Finding:
    """What the comparison found.

    Attributes:
        error: Relative error of the derivative by nested tapes, or `None` where it
            could not be computed.
        reason: What TensorFlow said, if it raised; else empty.
    """

    error: float | None
    reason: str = ""

    @property
    def passed(self) -> bool:
        """Whether the second derivatives can be trained on."""
        return self.error is not None and self.error <= _TOLERANCE


def second_order(
    network: Callable[[Any], Any], x: Any, variables: list[Any]
) -> Finding:
    """Compare a second derivative by nested tapes with a finite difference.

    With `P(theta) = ||v^T J(theta)||^2` for a fixed `v`, compares `<dP/dtheta, u>`
    with `P(theta + u/2) - P(theta - u/2)` for a small step `u`.

    Args:
        network: Function from float inputs to `(B, K)`, deterministic.
        x: Float inputs `(B, *S)`.
        variables: Variables that the network depends on.

    Returns:
        The finding.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.checks.second_order import second_order
        >>> w = tf.Variable([[1.0], [2.0]], dtype=tf.float64)
        >>> x = tf.ones((1, 2), tf.float64)
        >>> second_order(lambda x: tf.tanh(x @ w), x, [w]).passed
        True
    """
    rng = np.random.default_rng(1)
    cotangents: dict[tuple[int, ...], Any] = {}

    def penalty() -> Any:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(x)
            z = network(x)
        shape = tuple(z.shape)
        if shape not in cotangents:
            cotangents[shape] = rng.standard_normal(shape)
        gradient = tape.gradient(
            z, x, tf.cast(cotangents[shape], z.dtype), tf.UnconnectedGradients.ZERO
        )
        return tf.reduce_sum(tf.square(tf.cast(gradient, tf.float64)))

    def differentiated() -> tuple[float, Any]:
        with tf.GradientTape() as outer:
            value = penalty()
        return float(value), outer.gradient(value, [_primary(v) for v in variables])

    def steps_from(centre: list[Any]) -> list[Any]:
        return [
            _STEP
            * (c * (1.0 + 0.5 * rng.standard_normal(c.shape)) + 0.01 * _spread(c, rng))
            for c in centre
        ]

    def compare(fraction: float) -> tuple[float, float]:
        """Return the measured and the predicted change over part of the step."""
        ends, places = [], []
        for sign in (0.5, -0.5):
            for variable, c, step in zip(variables, centre, steps, strict=True):
                variable.assign(c + sign * fraction * step)
            places.append([np.array(_primary(v), np.float64) for v in variables])
            ends.append(float(penalty()))
        # float32 weights round the step: take the step that was really made.
        predicted = sum(
            float(np.sum(np.asarray(tf.convert_to_tensor(d), np.float64) * (up - down)))
            for d, up, down in zip(derivative, *places, strict=True)
            if d is not None
        )
        return ends[0] - ends[1], predicted

    with _put_back(variables) as start:
        centre = start
        try:
            value, derivative = differentiated()
            if value == 0.0:
                # A head of zeros, as in transfer learning: look beside it.
                moves = steps_from(start)
                centre = [c + step for c, step in zip(start, moves, strict=True)]
                _assign(variables, centre)
                value, derivative = differentiated()
        except (LookupError, tf.errors.OpError, NotImplementedError) as error:
            return Finding(None, first_line(error))
        if value == 0.0:
            return Finding(None, "the outputs do not depend on the inputs")
        steps = steps_from(centre)
        measured, predicted = compare(1.0)
        scale = max(abs(measured), abs(predicted), 1e-2 * _STEP * value)
        distance = abs(measured - predicted) / scale
        if distance > _TOLERANCE:
            # Where a unit changes sides in between, the difference measures the jump.
            half = 2.0 * compare(0.5)[0]
            if abs(half - measured) > 0.5 * abs(measured - predicted):
                return Finding(0.0, "too many kinks to compare")
        return Finding(distance)


@contextmanager
def _put_back(variables: list[Any]) -> Iterator[list[Any]]:
    """Give the values of variables, and give them back to them after the block."""
    start = [np.array(_primary(v)) for v in variables]
    try:
        yield start
    finally:
        _assign(variables, start)


def _assign(variables: list[Any], values: list[Any]) -> None:
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def _primary(variable: Any) -> Any:
    """Return what a tape knows a variable by: under a strategy, its first replica."""
    value = variable.value if isinstance(variable, keras.Variable) else variable
    return getattr(value, "values", [value])[0]


def _spread(c: Any, rng: np.random.Generator) -> Any:
    return rng.standard_normal(c.shape)
