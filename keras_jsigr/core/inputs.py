"""What a model takes: input specs and a small batch to try it with."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from keras_jsigr.core.variables import stateless


def as_float(x: Any) -> tf.Tensor:
    """Return a tensor of its own float type, integers as float32."""
    x = tf.convert_to_tensor(x)
    return x if x.dtype.is_floating else tf.cast(x, tf.float32)


def finite_rows(values: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Tell which rows have no NaN and nothing infinite."""
    others = tuple(range(1, values.ndim))
    found: npt.NDArray[np.bool_] = np.isfinite(values).all(axis=others)
    return found


@contextmanager
def random_weights(model: keras.Model) -> Iterator[None]:
    """Let a model have random weights inside the block."""
    values = [
        (variable, _values(variable, index))
        for index, variable in enumerate(model.weights)
        if "float" in keras.backend.standardize_dtype(variable.dtype)
    ]
    with stateless(values):
        yield


def random_inputs_like(probe: Any) -> Any:
    """Return random inputs of the shapes and dtypes of others."""

    def drawn(x: Any) -> Any:
        x = tf.convert_to_tensor(x)
        if not x.dtype.is_floating:
            return x
        return tf.cast(tf.random.stateless_uniform(tf.shape(x), (0, 1)), x.dtype)

    return keras.tree.map_structure(drawn, probe)


def _values(variable: Any, index: int) -> tf.Tensor:
    shape, low, high = tuple(variable.shape), 0.5, 1.5
    if len(shape) > 1:
        # The kernels of depthwise convolutions have their multiplier last.
        inputs = shape[:-2] if shape[-1] == 1 and len(shape) > 2 else shape[:-1]
        high = math.sqrt(6.0 / max(1, math.prod(inputs)))  # as He's, for ReLU
        low = -high
    drawn = tf.random.stateless_uniform(shape, (0, index), low, high)
    return tf.cast(drawn, keras.backend.standardize_dtype(variable.dtype))


def input_specs(model: keras.Model) -> Any:
    """Describe the inputs of a built model."""
    if not model.built:
        raise ValueError(
            f"`{model.name}` is not built: got a model without weights, expected one that knows "
            "its input shape. Call it once on a batch, or start it with `keras.Input(shape)`."
        )
    tensors = getattr(model, "inputs", None)
    if tensors:
        structure = tensors[0] if len(tensors) == 1 else model.input
        return keras.tree.map_structure(
            lambda t: tf.TensorSpec((None, *t.shape[1:]), t.dtype, name=t.name),
            structure,
        )
    shapes = (model.get_build_config() or {}).get("input_shape")
    if shapes is None:
        raise ValueError(
            f"`{model.name}` takes several arguments or never saw an input: expected "
            "a model called with one (possibly nested) input. Call it once on a batch."
        )
    count = iter(range(1_000))

    def spec(shape: Any) -> tf.TensorSpec:
        name = f"inputs_{next(count)}" if _nested(shapes) else "inputs"
        return tf.TensorSpec((None, *shape[1:]), keras.config.floatx(), name=name)

    return keras.tree.map_shape_structure(spec, shapes)


def _nested(shapes: Any) -> bool:
    return isinstance(shapes, dict) or any(isinstance(part, (tuple, list, dict)) for part in shapes)


# Tried in turn for open sides: some models need many steps, others take few.
_OPEN_SIDES = (32, 64, 128, 16, 8, 224, 512, 4, 2, 1)
_FOUND_SIDES: WeakKeyDictionary[keras.Model, int] = WeakKeyDictionary()


def probe_batch(
    model: keras.Model,
    specs: Any,
    input_range: Any = (0.0, 1.0),
    size: int = 2,
) -> Any:
    """Make a small random batch that a model takes, of `size` if it takes any size."""
    # A subclass only knows of the batch it saw first, which binds it to nothing.
    tensors = getattr(model, "inputs", None) or []
    size = next((int(t.shape[0]) for t in tensors if t.shape[0]), size)
    side = 1
    if any(None in spec.shape[1:] for spec in keras.tree.flatten(specs)):
        if model not in _FOUND_SIDES:
            _FOUND_SIDES[model] = _open_side(model, specs, input_range, size)
        side = _FOUND_SIDES[model]
    return _random_batch(specs, input_range, size, side)


def _open_side(model: keras.Model, specs: Any, input_range: Any, size: int) -> int:
    """Find a length that a model takes for the sides that it leaves open."""
    taken = []
    for side in _OPEN_SIDES:
        try:
            batch = _random_batch(specs, input_range, size, side)
            floats = [leaf for leaf in keras.tree.flatten(batch) if leaf.dtype.is_floating]
            with stateless(), tf.GradientTape() as tape:
                tape.watch(floats)
                outputs = model(batch, training=False)
            taken.append(side)
            # Of too few steps a convolution leaves none: no gradient, a mean of NaN.
            found = [*keras.tree.flatten(outputs), *tape.gradient(outputs, floats)]
            if all(np.isfinite(tf.cast(f, tf.float32)).all() for f in found if f is not None):
                return side
        except Exception as error:  # whatever the user's layers raise
            last = error
    if taken:
        return taken[0]
    lines = [line.strip() for line in str(last).splitlines() if line.strip()]
    raise ValueError(
        f"`{model.name}` leaves sides of its inputs open: got an error for all lengths "
        f"tried, {sorted(_OPEN_SIDES)}, the last {type(last).__name__} "
        f"({lines[0] if lines else 'without words'}). Build it with a fixed "
        "shape, such as keras.Input((100, 3))."
    )


def _random_batch(specs: Any, input_range: Any, size: int, open_side: int) -> Any:
    rng = np.random.default_rng(0)

    def fill(spec: tf.TensorSpec) -> tf.Tensor:
        shape = [size, *(side or open_side for side in spec.shape[1:])]
        if not spec.dtype.is_floating:
            return tf.zeros(shape, spec.dtype)
        ends = input_range
        if isinstance(ends, dict):  # inputs with ranges of their own
            ends = ends.get(spec.name, (0.0, 1.0))
        draw: Any = rng.uniform
        return tf.constant(draw(*ends, shape), spec.dtype)

    return keras.tree.map_structure(fill, specs)


def in_structure(x: Any, specs: Any) -> Any:
    """Arrange inputs the way the model lists them, with the axes it expects."""
    flat = keras.tree.flatten(specs)
    names = [spec.name for spec in flat]
    if isinstance(x, dict) and isinstance(specs, dict) and set(specs) < set(x):
        x = {name: x[name] for name in specs}  # of a table with more columns
    elif isinstance(x, dict) and not isinstance(specs, dict) and set(names) <= set(x):
        x = keras.tree.pack_sequence_as(specs, [x[name] for name in names])
    leaves = keras.tree.flatten(x)
    if len(leaves) != len(flat):
        return x
    full = [_with_last_axis(*pair) for pair in zip(leaves, flat, strict=True)]
    return keras.tree.pack_sequence_as(x, full)


def _with_last_axis(leaf: Any, spec: tf.TensorSpec) -> Any:
    shape = getattr(leaf, "shape", None)  # a dataset or a generator has none
    more = 0 if shape is None else spec.shape.rank - (tf.TensorShape(shape).rank or 0)
    if (more, *spec.shape[-1:]) != (1, 1) and (more, *(shape or ())[-1:]) != (-1, 1):
        return leaf
    # A column of a data frame is no array.
    array = leaf if tf.is_tensor(leaf) else np.asarray(leaf)
    return array[..., None] if more == 1 else array[..., 0]


def with_known_sides(leaf: Any, spec: tf.TensorSpec) -> Any:
    """Tell TensorFlow the sides of an input where a data pipeline lost them."""
    if not isinstance(leaf, tf.Tensor) or leaf.shape.rank != spec.shape.rank:
        return leaf
    known = leaf.shape[1:].is_fully_defined()
    if known or not spec.shape.is_compatible_with(leaf.shape):
        return leaf
    return tf.ensure_shape(leaf, spec.shape)
