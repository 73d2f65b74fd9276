"""What a model takes: input specs and a small batch to try it with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_jsigr.core.kept_states import kept, states_of

_UNKNOWN_SIDE = 32  # stands for a dimension the model leaves open


def input_specs(model: keras.Model) -> Any:
    """Describe the inputs of a built model.

    Args:
        model: A built Functional, Sequential or subclassed Keras model.

    Returns:
        The structure of the model's inputs with a named `tf.TensorSpec` of batch
        dimension `None` at every leaf.

    Raises:
        ValueError: If the model is not built, or takes several arguments.

    Example:
        >>> import keras
        >>> from keras_jsigr.core.inputs import input_specs
        >>> net = keras.Sequential([keras.Input((2,), name="x"), keras.layers.Dense(1)])
        >>> input_specs(net).shape
        TensorShape([None, 2])
    """
    if not model.built:
        raise ValueError(
            f"`{model.name}` is not built: got a model without weights, expected one "
            "that knows its input shape. Call it once on a batch, or start it with "
            "`keras.Input(shape)`."
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
    return isinstance(shapes, dict) or any(
        isinstance(part, (tuple, list, dict)) for part in shapes
    )


def probe_batch(
    specs: Any, input_range: tuple[float, float] = (0.0, 1.0), size: int = 2
) -> Any:
    """Make a small random batch that a model with these specs takes.

    Args:
        specs: A structure of `tf.TensorSpec` from `input_specs`.
        input_range: Range of the float inputs.
        size: Number of examples.

    Returns:
        Tensors in the same structure: floats uniform in the range (always the same
        ones), integers and booleans zero.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.core.inputs import probe_batch
        >>> probe_batch(tf.TensorSpec((None, 3), tf.float32)).shape
        TensorShape([2, 3])
    """
    rng = np.random.default_rng(0)

    def fill(spec: tf.TensorSpec) -> tf.Tensor:
        shape = [size, *(side or _UNKNOWN_SIDE for side in spec.shape[1:])]
        if not spec.dtype.is_floating:
            return tf.zeros(shape, spec.dtype)
        return tf.constant(rng.uniform(*input_range, shape), spec.dtype)

    return keras.tree.map_structure(fill, specs)


def probe_size(model: keras.Model, size: int = 2) -> int:
    """Return how many examples to try a model with.

    Args:
        model: A built Keras model.
        size: Number of examples wanted.

    Returns:
        `size`, or the only batch size that the model was made for.

    Example:
        >>> import keras
        >>> from keras_jsigr.core.inputs import probe_size
        >>> x = keras.Input(batch_shape=(4, 2))
        >>> probe_size(keras.Model(x, keras.layers.Dense(1)(x)))
        4
    """
    # A subclass only knows of the batch it saw first, which binds it to nothing.
    tensors = getattr(model, "inputs", None) or []
    return next((int(t.shape[0]) for t in tensors if t.shape[0]), size)


@contextmanager
def unchanged_state(model: keras.Model) -> Iterator[None]:
    """Put everything a pass in training mode moves back after the block.

    Moving statistics, random seeds and the states of recurrent layers, and weights too:
    spectral normalization scales its kernel in the pass.

    Args:
        model: A built Keras model.

    Yields:
        Nothing.

    Example:
        >>> import keras, numpy as np
        >>> from keras_jsigr.core.inputs import unchanged_state
        >>> net = keras.Sequential(
        ...     [keras.Input((2,)), keras.layers.BatchNormalization()]
        ... )
        >>> with unchanged_state(net):
        ...     y = net(np.ones((4, 2)), training=True)
        >>> net.layers[0].moving_mean.numpy().tolist()
        [0.0, 0.0]
    """
    with kept([*model.variables, *states_of(model)]):
        yield


def in_structure(x: Any, specs: Any) -> Any:
    """Arrange inputs the way the model lists them, with the axes it expects.

    Keras takes `{name: array}` for a model whose inputs are a list; flattening that
    dict would sort its names. Where the last axis has length one, Keras adds it to
    inputs that lack it.

    Args:
        x: Inputs as `fit` takes them.
        specs: A structure of named `tf.TensorSpec` from `input_specs`.

    Returns:
        `x`, or its values in the structure and the ranks of `specs`.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.core.inputs import in_structure
        >>> specs = [tf.TensorSpec((None,), name="b"), tf.TensorSpec((None,), name="a")]
        >>> in_structure({"a": 1, "b": 2}, specs)
        [2, 1]
    """
    flat = keras.tree.flatten(specs)
    names = [spec.name for spec in flat]
    by_name = isinstance(x, dict) and not isinstance(specs, dict)
    if by_name and set(names) <= set(x):
        x = keras.tree.pack_sequence_as(specs, [x[name] for name in names])
    leaves = keras.tree.flatten(x)
    if len(leaves) != len(flat):
        return x
    full = [_with_last_axis(*pair) for pair in zip(leaves, flat, strict=True)]
    return keras.tree.pack_sequence_as(x, full)


def _with_last_axis(leaf: Any, spec: tf.TensorSpec) -> Any:
    shape = getattr(leaf, "shape", None)  # a dataset or a generator has none
    if shape is None or spec.shape[-1:] != (1,):
        return leaf
    lacks = tf.TensorShape(shape).rank == spec.shape.rank - 1
    return leaf[..., None] if lacks else leaf


def with_known_sides(leaf: Any, spec: tf.TensorSpec) -> Any:
    """Tell TensorFlow the sides of an input where a data pipeline lost them.

    Args:
        leaf: One input, array or tensor.
        spec: Its spec from `input_specs`.

    Returns:
        `leaf`, or a tensor of the same values whose unknown sides are those of `spec`
        (checked when it runs). Sides that are known are left alone, and other ranks.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.core.inputs import with_known_sides
        >>> with_known_sides(tf.ones((2, 3)), tf.TensorSpec((None, 3))).shape
        TensorShape([2, 3])
    """
    if not isinstance(leaf, tf.Tensor) or leaf.shape.rank != spec.shape.rank:
        return leaf
    known = leaf.shape[1:].is_fully_defined()
    if known or not spec.shape.is_compatible_with(leaf.shape):
        return leaf
    return tf.ensure_shape(leaf, spec.shape)
