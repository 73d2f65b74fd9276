"""Check the derivatives that training needs, and refuse what TensorFlow gets wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_jsigr.core.keras_compat import (
    Hook,
    all_layers,
    altered_layers,
    exact_moments,
    layer_calls,
    leaf_layers,
)
from keras_jsigr.core.variables import stateless
from keras_jsigr.penalties.jacobian import jvp


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
    """Let the layers of a model compute in float64 inside the block."""
    policy = {"_dtype_policy": UpwardPolicy()}
    with altered_layers(all_layers(model), lambda _: policy):
        yield


def of_one_input(
    forward: Callable[[Any], Any], x: Any, index: int
) -> Callable[[Any], Any]:
    """Return `forward` as a function of one input, the others as they are in `x`."""
    leaves = keras.tree.flatten(x)

    def network(value: Any) -> Any:
        full = [*leaves[:index], value, *leaves[index + 1 :]]
        return forward(keras.tree.pack_sequence_as(x, full))

    return network


def first_line(error: Exception) -> str:
    """Return what TensorFlow says, without where Keras was when it said it."""
    lines = [line.strip() for line in str(error).splitlines()]
    told = [line for line in lines if line and not line.startswith("Exception enc")]
    return told[0] if told else type(error).__name__


# A relative step: small enough for the difference to be a derivative, large enough
# for float64 to leave six digits of it.
_STEP = 3e-6


_TOLERANCE = 0.02


@dataclass(frozen=True)
class Finding:
    """What the comparison found."""

    error: float | None
    reason: str = ""

    @property
    def passed(self) -> bool:
        """Whether the second derivatives can be trained on."""
        return self.error is not None and self.error <= _TOLERANCE


def second_order(
    network: Callable[[Any], Any], x: Any, variables: list[Any]
) -> Finding:
    """Compare a second derivative by nested tapes with a finite difference."""
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

    def penalty_at(values: list[Any]) -> Any:
        with stateless(zip(variables, values, strict=True)):
            return penalty()

    def differentiated(values: list[Any]) -> tuple[float, Any]:
        with tf.GradientTape() as outer:
            outer.watch(values)
            value = penalty_at(values)
        return float(value), outer.gradient(value, values)

    def steps_from(centre: list[Any]) -> list[Any]:
        return [
            _STEP
            * (c * (1.0 + 0.5 * rng.standard_normal(c.shape)) + 0.01 * _spread(c, rng))
            for c in map(np.array, centre)
        ]

    def moved(centre: list[Any], steps: list[Any], share: float = 1.0) -> list[Any]:
        pairs = zip(centre, steps, strict=True)
        return [tf.constant(np.array(c) + share * s, c.dtype) for c, s in pairs]

    def compare(fraction: float) -> tuple[float, float]:
        """Return the measured and the predicted change over part of the step."""
        up, down = (moved(centre, steps, sign * fraction) for sign in (0.5, -0.5))
        # float32 weights round the step: take the step that was really made.
        predicted = sum(
            float(
                np.sum(
                    np.float64(tf.convert_to_tensor(d))
                    * (np.float64(u) - np.float64(v))
                )
            )
            for d, u, v in zip(derivative, up, down, strict=True)
            if d is not None
        )
        return float(penalty_at(up)) - float(penalty_at(down)), predicted

    start = [tf.convert_to_tensor(keras.ops.convert_to_numpy(v)) for v in variables]
    centre = start
    try:
        value, derivative = differentiated(centre)
        if value == 0.0:
            # A head of zeros, as in transfer learning: look beside it.
            centre = moved(start, steps_from(start))
            value, derivative = differentiated(centre)
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


def _spread(c: Any, rng: np.random.Generator) -> Any:
    return rng.standard_normal(c.shape)


_KINKED = {
    "relu", "relu6", "leaky_relu", "selu", "hard_sigmoid", "hard_silu", "hard_swish",
    "hard_tanh", "hard_shrink", "soft_shrink", "threshold",
}  # fmt: skip


_layers = keras.layers


_RECTIFIERS = (_layers.ReLU, _layers.LeakyReLU, _layers.PReLU)


_POOLING = {
    _layers.MaxPooling1D: _layers.AveragePooling1D,
    _layers.MaxPooling2D: _layers.AveragePooling2D,
    _layers.MaxPooling3D: _layers.AveragePooling3D,
    _layers.GlobalMaxPooling1D: _layers.GlobalAveragePooling1D,
    _layers.GlobalMaxPooling2D: _layers.GlobalAveragePooling2D,
    _layers.GlobalMaxPooling3D: _layers.GlobalAveragePooling3D,
}


@contextmanager
def smooth_stand_ins(layers: list[keras.Layer]) -> Iterator[None]:
    """Let kinked layers compute something smooth of the same shape in the block."""
    with ExitStack() as stack:
        plain = []
        for layer in layers:
            stand_in = _stand_in(layer)
            if stand_in is None:
                plain.append(layer)
            else:
                stack.enter_context(layer_calls([layer], stand_in))
        stack.enter_context(altered_layers(plain, _smooth_activations))
        yield


def _smooth_activations(layer: keras.Layer) -> dict[str, Any]:
    names = ("activation", "recurrent_activation")
    functions = {name: getattr(layer, name, None) for name in names}
    return {
        name: keras.activations.silu
        for name, function in functions.items()
        if getattr(function, "__name__", "") in _KINKED
    }


def _stand_in(layer: keras.Layer) -> Hook | None:
    if isinstance(layer, _RECTIFIERS):
        return lambda layer, call, inputs: keras.activations.silu(inputs)
    if isinstance(layer, _layers.SpectralNormalization):
        # It scales its kernel, then applies it: the gradient is of the second alone.
        return lambda layer, call, inputs, training=False: layer.layer(inputs)
    for kinked, smooth in _POOLING.items():
        if isinstance(layer, kinked):
            pooling = smooth.from_config(layer.get_config())
            # In the dtype it meets.
            return lambda layer, call, inputs: pooling.call(inputs)
    return None


_SUSPECT = 0.1


# TensorFlow differentiates their interpolation as if the inverse movement undid it:
# even the first derivative for the pixels is off, by as much as the draw decides.
_MOVES_PIXELS = tuple(
    getattr(keras.layers, name)
    for name in (
        "RandomElasticTransform",
        "RandomPerspective",
        "RandomRotation",
        "RandomShear",
        "RandomTranslation",
        "RandomZoom",
    )
    if hasattr(keras.layers, name)  # Keras keeps adding to them
)


# Of two examples batch normalization of maps of one pixel leaves a sign, and no slope.
_FEW, _SEVERAL = 2, 16


def check_second_order(
    model: keras.Model,
    forward: Callable[[Any, bool], Any],
    batch: Callable[[int], Any],
    index: int,
) -> None:
    """Refuse a network whose second derivatives are missing or wrong."""
    variables = list(model.trainable_variables)

    def tried(size: int) -> Finding:
        x = batch(size)
        network = of_one_input(lambda full: forward(full, True), x, index)
        return _try(model, network, keras.tree.flatten(x)[index], variables)

    if not variables:
        return
    moving = [each for each in leaf_layers(model) if isinstance(each, _MOVES_PIXELS)]
    if moving:
        raise ValueError(
            f"TensorFlow's derivative of {_named(moving)} for the pixels is wrong, by "
            "as much as the random draw decides. J-SIGR by double backpropagation "
            "would train on it. Augment in the data pipeline, or use "
            "estimator='finite_difference' with norm='squared', which needs none."
        )
    finding = tried(_FEW)
    if finding.passed:
        return
    if finding.error is not None:
        finding = tried(_SEVERAL)
        if finding.passed:
            return
    culprits = [layer for layer in leaf_layers(model) if not layer_passes(layer)]
    if finding.error is not None and finding.error <= _SUSPECT and not culprits:
        return  # rounding in a deep network, not a wrong derivative: those are larger
    what = (
        f"raises: {finding.reason}"
        if finding.error is None
        else f"is wrong by {finding.error:.0%}, silently"
    )
    where = f" of {_named(culprits)}" if culprits else f" of `{model.name}`"
    way = (
        "or exchange the layer"
        if culprits
        else "or, as no layer fails alone, probe=False if you know better"
    )
    raise ValueError(
        f"TensorFlow's second derivative{where} {what}. J-SIGR by double "
        "backpropagation would train on it. Use estimator='finite_difference' with "
        f"norm='squared', which needs none, {way}."
    )


def _named(layers: list[keras.Layer]) -> str:
    return ", ".join(f"`{layer.name}` ({type(layer).__name__})" for layer in layers)


def _try(
    model: keras.Model, network: Callable[[Any], Any], x: Any, variables: list[Any]
) -> Finding:
    def replayed(value: Any) -> Any:
        with stateless():  # same dropout mask, same statistics every time
            return network(value)

    wrappers = [
        layer
        for layer in all_layers(model)
        if isinstance(layer, keras.layers.SpectralNormalization)
    ]
    with smooth_stand_ins([*leaf_layers(model), *wrappers]):
        return _in_double_or_single(model, replayed, x, variables)


def _in_double_or_single(
    model: keras.Layer, network: Callable[[Any], Any], x: Any, variables: list[Any]
) -> Finding:
    with exact_moments():
        try:
            with double_precision(model):
                finding = second_order(network, tf.cast(x, tf.float64), variables)
            if finding.error is not None:
                return finding
        except (TypeError, ValueError, tf.errors.InvalidArgumentError):
            pass
        # A layer that insists on float32, or an operation without a kernel for more
        # digits: numbers are then too coarse to compare, but a missing gradient shows.
        finding = second_order(network, x, variables)
        return finding if finding.error is None else Finding(0.0)


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
    """Test one layer alone, between two smooth maps."""
    shape = _input_shape(layer)
    if shape is None:
        return True
    rng = np.random.default_rng(2)
    x = tf.constant(rng.uniform(0.1, 1.0, [2, *(s or 8 for s in shape[1:])]))
    start = rng.uniform(0.5, 1.5, x.shape[1:])
    scale = keras.Variable(start, dtype="float64", trainable=False, autocast=False)

    def network(value: Any) -> Any:
        inputs = tf.cast(tf.sin(value * scale.value), layer.compute_dtype)
        with stateless():
            y = tf.cast(layer(inputs, training=True), tf.float64)
        return tf.reshape(tf.sin(y), (2, -1))

    try:
        with smooth_stand_ins([layer]):
            return _in_double_or_single(layer, network, x, [scale]).passed
    except (TypeError, ValueError, tf.errors.InvalidArgumentError):
        return True


def check_forward_mode(
    model: keras.Model, forward: Callable[[Any], Any], x: Any, index: int
) -> None:
    """Refuse a network that the estimator "jvp" cannot train, such as one with loops."""
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
