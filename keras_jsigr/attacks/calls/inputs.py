"""Refuse inputs that an attack would silently do nonsense on."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_jsigr.attacks.calls.inside import range_slack


def check_model(model: Any) -> None:
    """Check that the model takes one input.

    Args:
        model: A Keras model or any callable.

    Raises:
        ValueError: If it is a Keras model of several inputs.

    Example:
        >>> from keras_jsigr.attacks.calls.inputs import check_model
        >>> check_model(lambda x: x)
    """
    inputs = getattr(model, "inputs", None) if isinstance(model, keras.Model) else None
    if inputs is not None and len(inputs) != 1:
        names = [tensor.name for tensor in inputs]
        raise ValueError(
            f"`{model.name}` takes {len(inputs)} inputs: got {names}, expected one. "
            "Pass a callable of the input to attack that fills in the others. It is "
            "asked about any of the examples, in any order: what it fills in has to be "
            "the same for all."
        )


def check_inputs(x: Any, input_range: tuple[float, float]) -> Any:
    """Check a batch of examples and return it as an array or an eager tensor.

    Args:
        x: Float `(N, *S)`, NumPy array or eager tensor.
        input_range: `(low, high)` that all values must lie in, up to their rounding.

    Returns:
        `x`; a `tf.Variable` becomes a tensor.

    Raises:
        TypeError: If `x` is not one float array or tensor with values.
        ValueError: If it is empty, has no sample axes, NaN, infinity, or values
            outside the range.

    Example:
        >>> import numpy as np
        >>> from keras_jsigr.attacks.calls.inputs import check_inputs
        >>> check_inputs(np.zeros((2, 3), "float32"), (0.0, 1.0)).shape
        (2, 3)
    """
    if isinstance(x, tf.Variable):
        x = tf.convert_to_tensor(x)
    if not isinstance(x, np.ndarray) and not tf.is_tensor(x):
        raise TypeError(
            f"`x` is a {type(x).__name__}, expected one NumPy array or tensor (N, ...)."
            " Pass np.asarray(x, 'float32'); models of several inputs are not "
            "supported."
        )
    if tf.is_symbolic_tensor(x):
        raise TypeError(
            "`x` is a symbolic tensor, expected values. Inside a tf.function use "
            "`attack.perturb(logits_fn, x, targets, seed=seed)`."
        )
    dtype = tf.as_dtype(x.dtype)
    if not dtype.is_floating:
        raise TypeError(
            f"`x` has dtype {dtype.name}, expected a float dtype. Convert it first, "
            "x.astype('float32'), scaled as the model takes it, and set `input_range` "
            "to match."
        )
    shape = tuple(x.shape)
    if len(shape) < 2 or 0 in shape:
        raise ValueError(
            f"`x` has shape {shape}, expected a batch (N, ...) with at least one "
            "example. Pass x[None] for a single example."
        )
    _check_values(x, input_range)
    return x


def _check_values(x: Any, input_range: tuple[float, float]) -> None:
    smallest, largest = (float(f(x)) for f in (tf.reduce_min, tf.reduce_max))
    # The minimum of an array with a NaN is NaN only by convention: ask explicitly.
    if not bool(tf.reduce_all(tf.math.is_finite(x))):
        raise ValueError(
            "`x` contains NaN or infinity, expected finite values. "
            "Find them with np.isfinite(x)."
        )
    low, high = input_range
    slack = range_slack(x.dtype, input_range)
    if smallest < low - slack or largest > high + slack:
        raise ValueError(
            f"`x` leaves the input range: got values in [{smallest:g}, {largest:g}], "
            f"expected [{low:g}, {high:g}]. Set `input_range` to the range of your "
            "data, and `epsilon` in its units, or rescale `x`."
        )


def check_region(region: Any, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """Check where inputs may change and return it in the shape of the inputs.

    Args:
        region: Zeros and ones or bools, of shape `(N, *S)` or one that broadcasts to
            it, with or without the last axis of `S` (the channels of an image).
        shape: `(N, *S)`.

    Returns:
        Float32 `(N, *S)`, a view.

    Raises:
        ValueError: If it does not broadcast or holds other values.

    Example:
        >>> import numpy as np
        >>> from keras_jsigr.attacks.calls.inputs import check_region
        >>> check_region(np.eye(2), (5, 2, 2, 3)).shape
        (5, 2, 2, 3)
    """
    values = np.asarray(region)
    if not np.isin(values, (0, 1)).all():
        raise ValueError(
            f"`region` holds other values than 0 and 1: got {values.min()} to "
            f"{values.max()}. Pass for instance `maps > threshold`."
        )
    values = values.astype("float32")
    whole, without = values, values[..., None]
    # What has all axes but the channels is one of these, also where it would broadcast.
    lacks = len(shape) > 2 and values.shape == shape[:-1]
    order = (without, whole) if lacks else (whole, without)
    for candidate in order:
        try:
            return np.broadcast_to(candidate, shape)
        except ValueError:
            continue
    raise ValueError(
        f"`region` has shape {values.shape}, expected {shape}, {shape[:-1]} or one "
        "that broadcasts to them. Give one region per example."
    )
