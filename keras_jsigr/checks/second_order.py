"""Does TensorFlow differentiate this network twice, and rightly? Numbers decide."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_jsigr.core.exact_moments import exact_moments
from keras_jsigr.core.inputs import unchanged_state
from keras_jsigr.core.keras_private import all_layers, leaf_layers

# A relative step: small enough that no ReLU of a network changes sides, large enough
# that float64 leaves six digits of the difference.
_STEP = 3e-6
_TOLERANCE = 0.02
_SUSPECT = 0.1


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


class UpwardPolicy(keras.DTypePolicy):
    """Compute in float64 on float32 variables: mixed precision, upwards."""

    def __init__(self) -> None:
        super().__init__("float64")

    @property
    def variable_dtype(self) -> str:
        """Dtype of the variables, which stay what they are."""
        return "float32"


@contextmanager
def double_precision(model: keras.Model | keras.Layer) -> Iterator[None]:
    """Let the layers of a model compute in float64 inside the block.

    Weights stay the float32 variables they are and are cast on reading, as in mixed
    precision, only upwards: finite differences need the digits.

    Args:
        model: A built Keras model or layer.

    Yields:
        Nothing.
    """
    layers = all_layers(model)
    before = [layer.dtype_policy for layer in layers]
    try:
        for layer in layers:
            layer.dtype_policy = UpwardPolicy()
        yield
    finally:
        for layer, policy in zip(layers, before, strict=True):
            layer.dtype_policy = policy


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

    try:
        with tf.GradientTape() as outer:
            value = penalty()
        derivative = outer.gradient(value, [_primary(v) for v in variables])
    except (LookupError, tf.errors.OpError, NotImplementedError) as error:
        return Finding(None, str(error).splitlines()[0])
    if float(value) == 0.0:
        return Finding(None, "the outputs do not depend on the inputs")
    centre = [np.array(_primary(v)) for v in variables]
    steps = [
        _STEP
        * (c * (1.0 + 0.5 * rng.standard_normal(c.shape)) + 0.01 * _spread(c, rng))
        for c in centre
    ]
    ends, places = [], []
    for sign in (0.5, -0.5):
        for variable, c, step in zip(variables, centre, steps, strict=True):
            variable.assign(c + sign * step)
        places.append([np.array(_primary(v), np.float64) for v in variables])
        ends.append(float(penalty()))
    for variable, c in zip(variables, centre, strict=True):
        variable.assign(c)
    # float32 weights round the step: take the step that was really made.
    predicted = sum(
        float(np.sum(np.asarray(tf.convert_to_tensor(d), np.float64) * (up - down)))
        for d, up, down in zip(derivative, *places, strict=True)
        if d is not None
    )
    measured = ends[0] - ends[1]
    scale = max(abs(measured), abs(predicted), 1e-2 * _STEP * float(value))
    return Finding(abs(measured - predicted) / scale)


def _primary(variable: Any) -> Any:
    """Return what a tape knows a variable by: under a strategy, its first replica."""
    value = variable.value if isinstance(variable, keras.Variable) else variable
    return getattr(value, "values", [value])[0]


def _spread(c: Any, rng: np.random.Generator) -> Any:
    return rng.standard_normal(c.shape)


def check_second_order(
    model: keras.Model, forward: Callable[[Any, bool], Any], x: Any, index: int
) -> None:
    """Refuse a network whose second derivatives are missing or wrong.

    Args:
        model: The base model.
        forward: Function from `x` and a training flag to logits.
        x: A probe batch in the model's input structure.
        index: Position of the input to differentiate for.

    Raises:
        ValueError: If the derivatives do not agree; names the layer where it can.
    """
    leaves = list(keras.tree.flatten(x))

    def network(value: Any) -> Any:
        full = [*leaves[:index], value, *leaves[index + 1 :]]
        return forward(keras.tree.pack_sequence_as(x, full), True)

    variables = list(model.trainable_variables)
    if not variables:
        return
    finding = _try_in_double(model, network, leaves[index], variables)
    if finding.passed:
        return
    culprits = [
        f"`{layer.name}` ({type(layer).__name__})"
        for layer in leaf_layers(model)
        if not layer_passes(layer)
    ]
    if finding.error is not None and finding.error <= _SUSPECT and not culprits:
        return  # rounding in a deep network, not a wrong derivative: those are larger
    what = (
        f"raises: {finding.reason}"
        if finding.error is None
        else f"is wrong by {finding.error:.0%}, silently"
    )
    where = f" of {', '.join(culprits)}" if culprits else f" of `{model.name}`"
    raise ValueError(
        f"TensorFlow's second derivative{where} {what}. J-SIGR by double "
        "backpropagation would train on it. Use estimator='finite_difference' with "
        "norm='squared', which needs none, or exchange the layer."
    )


def _try_in_double(
    model: keras.Model, network: Callable[[Any], Any], x: Any, variables: list[Any]
) -> Finding:
    def replayed(value: Any) -> Any:
        with unchanged_state(model):  # same dropout mask, same statistics every time
            return network(value)

    with exact_moments():
        try:
            with double_precision(model):
                return second_order(replayed, tf.cast(x, tf.float64), variables)
        except (TypeError, ValueError, tf.errors.InvalidArgumentError):
            # A custom layer that insists on float32: numbers are then too coarse to
            # compare, but a missing gradient still shows.
            finding = second_order(replayed, x, variables)
            return Finding(0.0) if finding.error is not None else finding


def _input_shape(layer: keras.Layer) -> tuple[int | None, ...] | None:
    """Return the shape of a layer's only input, `None` if it has none or several."""
    shape = (layer.get_build_config() or {}).get("input_shape")
    if shape is None:  # activations and the like are never built
        shape = getattr(getattr(layer, "input", None), "shape", None)
    if not isinstance(shape, (tuple, list)):
        return None
    plain = all(side is None or isinstance(side, int) for side in shape)
    return tuple(shape) if plain else None


def layer_passes(layer: keras.Layer) -> bool:
    """Test one layer alone, between two smooth maps.

    Args:
        layer: A built layer; layers with several inputs are taken to pass.

    Returns:
        False if its second derivatives are missing or wrong.
    """
    shape = _input_shape(layer)
    if shape is None:
        return True
    rng = np.random.default_rng(2)
    x = tf.constant(rng.uniform(0.1, 1.0, [2, *(s or 8 for s in shape[1:])]))
    scale = tf.Variable(rng.uniform(0.5, 1.5, x.shape[1:]), dtype=tf.float64)

    def network(value: Any) -> Any:
        with unchanged_state(layer):
            y = tf.cast(layer(tf.sin(value * scale), training=True), tf.float64)
        return tf.reshape(tf.sin(y), (2, -1))

    try:
        with exact_moments(), double_precision(layer):
            return second_order(network, x, [scale]).passed
    except (TypeError, ValueError, tf.errors.InvalidArgumentError):
        return True
