"""Labels, ranges and shapes of what `fit` receives, looked at before training."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_jsigr.core.inputs import in_structure

_RANGE_TOLERANCE = 1e-4
# Data in 0..1 are a 255th of a range of bytes; of their own few use so little.
_SMALL_PART = 0.02
_CHUNK = 8192
# Of rows of soft labels in half precision.
_ROUNDING = 1e-2


def check_training_data(
    x: Any,
    y: Any,
    *,
    specs: Any,
    regularized: list[int],
    classes: int,
    input_range: tuple[float, float],
    ignored: Sequence[int] = (),
    padding: Sequence[Sequence[float]] = (),
    exclusive: bool = False,
) -> Any:
    """Refuse training data that would train something else than the user thinks.

    Arrays and tensors are looked at whole; of a `keras.utils.PyDataset` and of a
    `tf.data.Dataset` the first batch; generators are left alone, as looking would
    use them up.

    Args:
        x: What `fit` received as `x`.
        y: What `fit` received as `y`.
        specs: The model's input specs.
        regularized: Positions of the regularized inputs among the flattened inputs.
        classes: Number of outputs of the model.
        input_range: The declared range of the regularized inputs.
        ignored: Class indices of examples that the loss leaves out.
        padding: For each regularized input the values that mark a step of a sequence
            as padding, see `padding_of_inputs`: no values of the data.
        exclusive: Whether logits are taken for those of exclusive classes, for want of
            a head or a loss that says otherwise.

    Returns:
        The inputs that were looked at, in the structure of `specs`, or `None`.

    Raises:
        ValueError: If shapes, labels or values do not fit, or are not finite.
        TypeError: If a regularized input has no numeric dtype.

    Example:
        >>> import numpy as np, tensorflow as tf
        >>> from keras_jsigr.checks.data_check import check_training_data
        >>> seen = check_training_data(
        ...     np.zeros((4, 2), "float32"),
        ...     np.array([0, 1, 2, 0]),
        ...     classes=3,
        ...     specs=tf.TensorSpec((None, 2)),
        ...     regularized=[0],
        ...     input_range=(0, 1),
        ... )
    """
    batch = _first_batch(x, y)
    if batch is None:
        return None
    x, y = in_structure(batch[0], specs), batch[1]
    leaves, wanted = keras.tree.flatten(x), keras.tree.flatten(specs)
    if len(leaves) != len(wanted):
        raise ValueError(
            f"The model takes {len(wanted)} inputs: got {len(leaves)}. Pass them in "
            "the structure the model was built with."
        )
    for index, (leaf, spec) in enumerate(zip(leaves, wanted, strict=True)):
        if index not in regularized:  # anything the model takes, strings too
            _check_shape(leaf, spec)
            continue
        array = _as_array(leaf, spec.name)
        _check_shape(array, spec)
        values = padding[regularized.index(index)] if padding else ()
        _check_values(array, spec.name, input_range, values)
    labels = [leaf for leaf in keras.tree.flatten(y) if leaf is not None]
    if not labels:
        raise ValueError(
            "Training needs labels: got y=None. Pass class indices or one-hot rows."
        )
    array = _as_array(labels[0], "y") if hasattr(labels[0], "shape") else np.zeros(())
    if array.ndim:  # Keras has its own message for lists
        _check_labels(array, len(leaves[0]), classes, ignored)
        if exclusive and array.shape[1:] == (classes,) and classes > 1:
            _check_rows(array.sum(-1).max())
    return x


def _first_batch(x: Any, y: Any) -> tuple[Any, Any] | None:
    if isinstance(x, keras.utils.PyDataset):
        return _unpack(x[0])
    if isinstance(x, tf.data.Dataset):
        for data in x.take(1):
            return _unpack(data)
        raise ValueError("The dataset is empty: got no batch, expected at least one.")
    arrays = keras.tree.flatten(x)
    if not arrays or not all(hasattr(leaf, "shape") for leaf in arrays):
        return None
    if any(leaf.shape[0] == 0 for leaf in arrays if len(leaf.shape)):
        raise ValueError("The inputs are empty: got 0 examples, expected at least one.")
    return x, y


def _unpack(data: Any) -> tuple[Any, Any]:
    x, y, _ = keras.utils.unpack_x_y_sample_weight(data)
    return x, y


def _as_array(leaf: Any, name: str) -> np.ndarray[Any, Any]:
    array = np.asarray(leaf)
    if array.dtype == object or array.dtype.kind in "USO":
        raise TypeError(
            f"`{name}` is not numeric: got dtype {array.dtype}, expected floats or "
            "integers. Encode strings and ragged rows first."
        )
    return array


def _check_shape(leaf: Any, spec: tf.TensorSpec) -> None:
    shape = tuple(leaf.shape) if hasattr(leaf, "shape") else np.shape(leaf)
    if not spec.shape.is_compatible_with(shape):
        raise ValueError(
            f"Input `{spec.name}` has the wrong shape: got {shape}, expected "
            f"{tuple(spec.shape)}. Grey images need a channel axis: x[..., None]."
        )


def _without_padding(
    array: np.ndarray[Any, Any], padding: Sequence[float]
) -> np.ndarray[Any, Any]:
    for value in padding:
        array = array[~np.all(array == value, axis=-1)]
    return array


def _check_values(
    array: np.ndarray[Any, Any],
    name: str,
    input_range: tuple[float, float],
    padding: Sequence[float],
) -> None:
    low, high = np.inf, -np.inf
    for start in range(0, len(array), _CHUNK):
        chunk = _without_padding(array[start : start + _CHUNK], padding)
        if chunk.size:
            low, high = np.minimum(low, chunk.min()), np.maximum(high, chunk.max())
    if low > high:  # nothing but padding
        return
    if not np.isfinite([low, high]).all():
        raise ValueError(
            f"Input `{name}` holds NaN or infinity. Remove or fill those values."
        )
    slack = _RANGE_TOLERANCE * (input_range[1] - input_range[0])
    if low < input_range[0] - slack or high > input_range[1] + slack:
        raise ValueError(
            f"Input `{name}` leaves the declared range: got {low:g} to {high:g}, "
            f"expected {input_range[0]:g} to {input_range[1]:g}. Declare it with "
            f"`harden(..., input_range=({low:g}, {high:g}))`, or rescale the inputs."
        )
    if 0 < high - low < _SMALL_PART * (input_range[1] - input_range[0]):
        warnings.warn(
            f"Input `{name}` uses little of the declared range: got {low:g} to "
            f"{high:g}, expected {input_range[0]:g} to {input_range[1]:g}. Penalties "
            "are per unit of that range: declare the one of the data.",
            stacklevel=2,
        )


def _check_rows(largest: float) -> None:
    if largest > 1.0 + _ROUNDING:
        raise ValueError(
            f"Rows of labels name several classes: got a sum of {largest:g}, expected "
            "1 for a model that returns logits and a loss that does not say that its "
            "classes are independent. End the model in a sigmoid, or compile "
            "keras.losses.BinaryCrossentropy(from_logits=True)."
        )


def _check_labels(
    y: np.ndarray[Any, Any], examples: int, classes: int, ignored: Sequence[int]
) -> None:
    if len(y) != examples:
        raise ValueError(
            f"Got {examples} inputs and {len(y)} labels: expected one each."
        )
    if not np.isfinite(y).all():
        raise ValueError("The labels hold NaN or infinity. Remove those examples.")
    rows = y.ndim == 2 and y.shape[1] == classes and classes > 1
    if rows or classes == 1:
        if y.min() < 0 or y.max() > 1:
            raise ValueError(
                f"Labels are out of range: got {y.min():g} to {y.max():g}, expected "
                "0 to 1. One-hot rows and binary labels lie between 0 and 1."
            )
        return
    if y.ndim > 2 or (y.ndim == 2 and y.shape[1] != 1):
        raise ValueError(
            f"Labels have the wrong shape: got {y.shape}, expected (N,), (N, 1) or "
            f"(N, {classes}) for a model with {classes} classes."
        )
    y = y[~np.isin(y, ignored)]
    if not y.size:
        return
    if y.min() < 0 or y.max() >= classes or not np.equal(np.mod(y, 1), 0).all():
        raise ValueError(
            f"Labels are out of range: got {y.min():g} to {y.max():g}, expected whole "
            f"numbers 0 to {classes - 1}. Does the model have a unit for every class?"
        )
