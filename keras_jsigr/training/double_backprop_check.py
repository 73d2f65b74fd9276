"""Check the derivatives that training needs, and refuse what TensorFlow gets wrong."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

import keras
import numpy as np
import tensorflow as tf

from keras_jsigr.core.arguments import tell
from keras_jsigr.core.keras_compat import (
    Hook,
    all_layers,
    altered_layers,
    exact_moments,
    layer_calls,
    leaf_layers,
    with_functional_parts,
    without_input_casts,
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
    attributes = {"_dtype_policy": UpwardPolicy()}

    def of(layer: keras.Layer) -> dict[str, Any]:
        return {**attributes, **without_input_casts(layer)}

    with altered_layers(with_functional_parts(all_layers(model)), of):
        yield


def of_one_input(forward: Callable[[Any], Any], x: Any, index: int) -> Callable[[Any], Any]:
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


# Relative to the weights: as a rule, where layers round to float32, close to kinks.
_STEPS = (1e-5, 1e-3, 1e-7)
_TOLERANCE = 0.02
# Of a network that computes in float32 only.
_SINGLE_STEPS = (1e-2, 3e-2, 3e-3)
_SINGLE_TOLERANCE = 0.1
# Random directions: a wrong derivative may be right along one of them, not along all.
_DIRECTIONS = 3
# Networks with few weights, and few layers of the user's own, are tried one by one.
_FEW_VARIABLES, _FEW_LAYERS = 16, 16


@dataclass(frozen=True)
class Finding:
    """What the comparison found."""

    error: float | None
    reason: str = ""
    tolerance: float = _TOLERANCE

    @property
    def passed(self) -> bool:
        """Whether the second derivatives can be trained on."""
        return self.error is not None and self.error <= self.tolerance


def second_order(
    network: Callable[[Any], Any],
    x: Any,
    variables: list[keras.Variable],
    groups: Sequence[Sequence[int]] = (),
    verbose: int = 0,
) -> Finding:
    """Compare second derivatives by tapes with differences, also of `groups` alone."""
    rng = np.random.default_rng(1)
    cotangents: dict[tuple[int, ...], Any] = {}

    def penalty(values: list[Any]) -> Any:
        with (
            stateless(zip(variables, values, strict=True)),
            tf.GradientTape(watch_accessed_variables=False) as tape,
        ):
            tape.watch(x)
            z = network(x)
        shape = tuple(z.shape)
        if shape not in cotangents:
            cotangents[shape] = rng.standard_normal(shape)
        gradient = tape.gradient(
            z, x, tf.cast(cotangents[shape], z.dtype), tf.UnconnectedGradients.ZERO
        )
        return tf.reduce_sum(tf.square(tf.cast(gradient, tf.float64)))

    def differentiated(values: list[Any]) -> tuple[float, list[Any]]:
        with tf.GradientTape(watch_accessed_variables=False) as outer:
            outer.watch(values)
            value = penalty(values)
        slopes = outer.gradient(value, values)
        dense = [0.0 if s is None else np.float64(tf.convert_to_tensor(s)) for s in slopes]
        return float(value), dense

    def difference(direction: list[Any], step: float) -> float:
        ends = []
        for sign in (0.5, -0.5):
            moved = [v + sign * step * d for v, d in zip(centre, direction, strict=True)]
            ends.append(float(penalty(moved)))
        return ends[0] - ends[1]

    def random_direction(moving: Sequence[int]) -> list[Any]:
        return [
            max(_size(v), 0.01) * rng.standard_normal(v.shape)
            if index in moving
            else np.zeros(v.shape)
            for index, v in enumerate(centre)
        ]

    def error_along(direction: list[Any]) -> float | None:
        slope = sum(np.sum(s * d) for s, d in zip(slopes, direction, strict=True))
        found = []
        for step in _STEPS if double else _SINGLE_STEPS:
            predicted, measured = slope * step, difference(direction, step)
            scale = max(abs(measured), abs(predicted), 1e-2 * step * value)
            error = float(abs(measured - predicted) / scale)
            if error <= tolerance:
                return error
            half = 2.0 * difference(direction, 0.5 * step)
            found.append((float(abs(half - measured) / scale), error))
        # Kinks and rounding make the difference of the half step another one.
        doubt, error = min(found)
        return error if doubt <= 0.1 * error else None

    double = x.dtype == tf.float64
    tolerance = _TOLERANCE if double else _SINGLE_TOLERANCE
    dtypes = [tf.float64 if double else keras.backend.standardize_dtype(v.dtype) for v in variables]
    centre = [
        tf.constant(keras.ops.convert_to_numpy(v), dtype)
        for v, dtype in zip(variables, dtypes, strict=True)
    ]
    everything = range(len(variables))
    started = time.monotonic()
    try:
        value, slopes = differentiated(centre)
        if value == 0.0:
            # A head of zeros, as in transfer learning: look beside it.
            moves = random_direction(everything)
            centre = [v + tf.cast(m, v.dtype) for v, m in zip(centre, moves, strict=True)]
            value, slopes = differentiated(centre)
    except (LookupError, tf.errors.OpError, NotImplementedError) as error:
        return Finding(None, first_line(error))
    if value == 0.0:
        return Finding(None, _NO_GRADIENT)
    moving = [everything] * _DIRECTIONS + list(groups)
    seconds = (time.monotonic() - started) * len(moving)
    if seconds > _WORTH_A_WORD:
        tell(f"checks second derivatives, for about {seconds:.0f} seconds.", verbose)
    errors = [error_along(random_direction(each)) for each in moving]
    found = [error for error in errors if error is not None]
    return Finding(max(found), "", tolerance) if found else Finding(0.0, "too many kinks")


_WORTH_A_WORD = 5.0
_NO_GRADIENT = "the outputs do not depend on the inputs"


def _size(values: Any) -> float:
    return float(np.sqrt(np.mean(np.square(values)))) if np.size(values) else 0.0


_KINKED = {
    "relu", "relu6", "leaky_relu", "selu", "hard_sigmoid", "hard_silu", "hard_swish",
    "hard_tanh", "hard_shrink", "soft_shrink", "threshold",
}  # fmt: skip
_layers = keras.layers
_RECTIFIERS = (_layers.ReLU, _layers.LeakyReLU, _layers.PReLU)
_POOLING = {
    getattr(_layers, f"{kind}MaxPooling{rank}D"): getattr(_layers, f"{kind}AveragePooling{rank}D")
    for kind in ("", "Global")
    for rank in (1, 2, 3)
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


def _grouped(layer: Any, call: Any, inputs: Any) -> Any:
    """Convolve group by group: Keras compiles a grouped convolution in every call."""
    padding = layer.padding
    if padding == "causal":
        before = (layer.kernel_size[0] - 1) * layer.dilation_rate[0]
        inputs, padding = tf.pad(inputs, [[0, 0], [before, 0], [0, 0]]), "valid"
    kernels = tf.split(tf.convert_to_tensor(layer.kernel), layer.groups, axis=-1)
    parts = tf.split(inputs, layer.groups, axis=-1)
    if len(parts) == inputs.shape[-1] and layer.rank == 2 and len(set(layer.strides)) == 1:
        depthwise = tf.reshape(
            tf.transpose(tf.stack(kernels), (1, 2, 0, 3, 4)), (*layer.kernel_size, len(parts), -1)
        )
        outputs = tf.nn.depthwise_conv2d(
            inputs,
            depthwise,
            (1, *layer.strides, 1),
            padding.upper(),
            dilations=layer.dilation_rate,
        )
    else:
        convolved = [
            keras.ops.conv(
                part, kernel, layer.strides, padding, "channels_last", layer.dilation_rate
            )
            for part, kernel in zip(parts, kernels, strict=True)
        ]
        outputs = tf.concat(convolved, -1)
    if layer.use_bias:
        outputs += tf.convert_to_tensor(layer.bias)
    return outputs if layer.activation is None else layer.activation(outputs)


def _is_grouped(layer: keras.Layer) -> bool:
    return (
        type(layer) in (_layers.Conv1D, _layers.Conv2D, _layers.Conv3D)
        and layer.groups > 1
        and layer.data_format == "channels_last"
    )


def _stand_in(layer: keras.Layer) -> Hook | None:
    if _is_grouped(layer):
        return _grouped
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


# Even the first derivative of TensorFlow's interpolation is off in these.
_MOVES_PIXELS = tuple(
    getattr(keras.layers, f"Random{move}")
    for move in ["ElasticTransform", "Perspective", "Rotation", "Shear", "Translation", "Zoom"]
    if hasattr(keras.layers, f"Random{move}")  # Keras keeps adding to them
)
# Of two examples of one pixel batch normalization makes +-1, without a gradient.
_EXAMPLES, _EXAMPLES_TO_NORMALIZE = 2, 4


def check_second_order(
    model: keras.Model,
    forward: Callable[[Any, bool], Any],
    batch: Callable[[int], Any],
    index: int,
    verbose: int = 0,
) -> None:
    """Refuse a network with wrong second derivatives, those of frozen weights too."""
    leaves = leaf_layers(model)
    moving = [each for each in leaves if isinstance(each, _MOVES_PIXELS)]
    if moving:
        raise ValueError(
            f"TensorFlow's derivative of {_named(moving)} for the pixels is wrong, by "
            "as much as the random draw decides. J-SIGR by double backpropagation "
            "would train on it. Augment in the data pipeline, or use "
            "estimator='finite_difference' with norm='squared', which needs none."
        )
    normalizes = any(isinstance(x, keras.layers.BatchNormalization) for x in leaves)
    x = batch(_EXAMPLES_TO_NORMALIZE if normalizes else _EXAMPLES)
    network = of_one_input(lambda full: forward(full, True), x, index)
    # Those of the user's own may hold others, and compute something else once unfrozen.
    own = [layer for layer in all_layers(model)[1:] if _is_own(layer)]
    parts = [*leaves, *(layer for layer in own if layer not in leaves)]
    frozen = [layer for layer in own if not layer.trainable]
    for unfrozen in ([], frozen) if frozen else ([],):
        with altered_layers(unfrozen, lambda layer: {"_trainable": True}):
            finding = _try(model, network, keras.tree.flatten(x)[index], verbose)
            if not finding.passed:
                culprits = [layer for layer in parts if not layer_passes(layer)]
                _refuse(model, finding, culprits, ", once unfrozen," if unfrozen else "")


def _refuse(
    model: keras.Model, finding: Finding, culprits: list[keras.Layer], when: str
) -> NoReturn:
    where = (f" of {_named(culprits)}" if culprits else f" of `{model.name}`") + when
    if finding.reason == _NO_GRADIENT:
        raise ValueError(
            f"The gradient{where} is zero at all inputs tried: J-SIGR has nothing to regularize. "
            "Exchange the layer, or pass check_gradients=False if data of yours have one."
        )
    what = (
        f"raises: {finding.reason}"
        if finding.error is None
        else f"is wrong by {finding.error:.0%}, silently"
    )
    way = "or exchange the layer"
    if not culprits and finding.error is not None:
        way = "or, as no layer fails alone, check_gradients=False if you know better"
    raise ValueError(
        f"TensorFlow's second derivative{where} {what}. J-SIGR by double "
        "backpropagation would train on it. Use estimator='finite_difference' with "
        f"norm='squared', which needs none, {way}."
    )


def _named(layers: list[keras.Layer]) -> str:
    return ", ".join(f"`{layer.name}` ({type(layer).__name__})" for layer in layers)


def _try(model: keras.Model, network: Callable[[Any], Any], x: Any, verbose: int) -> Finding:
    def replayed(value: Any) -> Any:
        with stateless():  # same dropout mask, same statistics every time
            return network(value)

    wrappers = [
        layer
        for layer in all_layers(model)
        if isinstance(layer, keras.layers.SpectralNormalization)
    ]
    variables = [v for v in model.weights if _is_float(v)]
    groups = _groups(model, variables)
    with smooth_stand_ins([*leaf_layers(model), *wrappers]):
        return _in_double_or_single(model, replayed, x, variables, groups, verbose)


def _is_own(layer: keras.Layer) -> bool:
    return not type(layer).__module__.startswith("keras.")


def _is_float(variable: keras.Variable) -> bool:
    return "float" in keras.backend.standardize_dtype(variable.dtype)


def _groups(model: keras.Model, variables: list[keras.Variable]) -> list[tuple[int, ...]]:
    """Choose which weights are moved alone: all if few, else those of own layers."""
    if len(variables) <= _FEW_VARIABLES:
        return [(index,) for index in range(len(variables))]
    positions = {id(v): index for index, v in enumerate(variables)}
    own = [layer for layer in leaf_layers(model) if _is_own(layer)]
    key = id if len(own) <= _FEW_LAYERS else type
    found: dict[Any, list[int]] = {}
    for layer in own:
        held = [positions[id(v)] for v in layer.weights if id(v) in positions]
        found.setdefault(key(layer), []).extend(held)
    return [tuple(group) for group in found.values() if group]


def _in_double_or_single(
    model: keras.Layer,
    network: Callable[[Any], Any],
    x: Any,
    variables: list[keras.Variable],
    groups: Sequence[Sequence[int]] = (),
    verbose: int = 0,
) -> Finding:
    with exact_moments():
        try:
            with double_precision(model):
                wide = tf.cast(x, tf.float64)
                finding = second_order(network, wide, variables, groups, verbose)
            if finding.error is not None:
                return finding
        except (TypeError, ValueError, tf.errors.InvalidArgumentError):
            pass
        # Something insists on float32.
        return second_order(network, x, variables, groups, verbose)


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

    def passes(last: Callable[[Any], Any]) -> bool:
        def network(value: Any) -> Any:
            inputs = tf.cast(tf.sin(value * scale.value), layer.compute_dtype)
            with stateless():
                y = tf.cast(layer(inputs, training=True), tf.float64)
            return tf.reshape(last(y), (2, -1))

        try:
            with smooth_stand_ins([layer]):
                return _in_double_or_single(layer, network, x, [scale]).passed
        except (TypeError, ValueError, tf.errors.InvalidArgumentError):
            return True

    # Of what is quantized a sine makes steps, which hide a wrong derivative.
    return passes(tf.sin) and passes(lambda y: y * tf.reduce_mean(scale.value))


def check_forward_mode(
    model: keras.Model, forward: Callable[[Any], Any], x: Any, index: int
) -> None:
    """Refuse a network that the estimator "jvp" cannot train: one with loops."""
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
            f"{type(error).__name__} ({first_line(error)}), expected that a step traces. It has no "
            "such derivative of loops, those of recurrent layers among them: use "
            "estimator='finite_difference', or unroll=True in the layer."
        ) from error
