"""Checks of training data, which look at it without taking any of it away."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_jsigr.core.inputs import in_structure
from keras_jsigr.training.input_scales import InputScale

_RANGE_TOLERANCE = 1e-4
# Data in 0..1 are a 255th of a range of bytes; of their own few use so little.
_SMALL_PART = 0.02
_CHUNK = 8192
# Of rows of soft labels in half precision.
_ROUNDING = 1e-2
_EXCLUSIVE = (
    "for exclusive classes, as the head, the loss or multi_label=False says. For independent "
    "ones end the model in a sigmoid, compile keras.losses.BinaryCrossentropy(from_logits=True), "
    "or pass `harden(..., multi_label=True)`."
)
# Around what a compiled step says, so that it is found in TensorFlow's message.
_MARK = "keras_jsigr:"
# As compiled steps put them, and eager ones.
_BETWEEN_PARTS = re.compile(r"""\] \[|['"]?\n(?:b['"])?""")
_REFUSED = re.compile(rf"(?<={_MARK} )[^\0]*?(?= {_MARK})")


def are_arrays(x: Any) -> bool:
    """Tell whether data can be looked at as often as one likes."""
    if isinstance(x, keras.utils.PyDataset | tf.data.Dataset):
        return False
    leaves = keras.tree.flatten(x)
    return bool(leaves) and all(hasattr(leaf, "shape") for leaf in leaves)


def replica_batches(data: Any) -> Iterator[tuple[Any, Any]]:
    """Yield inputs and labels of a batch as each replica gets them."""

    def local(leaf: Any) -> tuple[Any, ...]:
        if isinstance(leaf, tf.experimental.Optional):
            return (None,)
        if isinstance(leaf, tf.distribute.DistributedValues):
            return tuple(leaf.values)
        return (leaf,)

    flat = [local(leaf) for leaf in keras.tree.flatten(data)]
    for number in range(max(map(len, flat))):
        leaves = [part[min(number, len(part) - 1)] for part in flat]
        batch = keras.tree.pack_sequence_as(data, leaves)
        x, y, _ = keras.utils.unpack_x_y_sample_weight(batch)
        yield x, y


class CheckedSteps:
    """Compiled steps that check the first batch of a stream, then train on it, too."""

    def __init__(self, model: Any, steps: Callable[[Any], Any]) -> None:
        self._model = model
        self._steps = steps

    def __call__(self, iterator: Any) -> Any:
        """Run `steps_per_execution` steps, as Keras' own function does."""
        model, count = self._model, int(self._model.steps_per_execution)
        streams = (tf.data.Iterator, tf.distribute.DistributedIterator)
        if isinstance(iterator, streams):
            if not model._look_at_first:
                return self._run(iterator)
            batches = list(islice(_drawn(iterator), count))
            if not batches:
                raise ValueError(
                    "The dataset is empty: got no batch, expected at least one. A "
                    "stream that can be read once has been read."
                )
            for batch in batches:
                model._check_batch(batch)
            model._look_at_first = False
            step = self._as_traced_for(iterator.element_spec)
            return [step(batch) for batch in batches][-1]
        batches = list(islice(iterator, count))  # of `train_on_batch`
        for batch in batches:
            model._check_batch(batch)
        return self._run(iter(batches))

    def _run(self, iterator: Any) -> Any:
        self._model._in_checked_steps = True
        try:
            return self._steps(iterator)
        except tf.errors.InvalidArgumentError as error:
            told = _REFUSED.search(error.message)
            if told is None:
                raise
            raise ValueError(_BETWEEN_PARTS.sub(" ", told[0])) from error
        finally:
            self._model._in_checked_steps = False

    def _as_traced_for(self, spec: Any) -> Callable[[Any], Any]:
        """Return one step, traced as the iterator's own: the next ones use it again."""

        def step(batch: Any) -> Any:
            return self._run(iter([batch]))

        plain = all(isinstance(leaf, tf.TensorSpec) for leaf in tf.nest.flatten(spec))
        if self._model.run_eagerly or not plain:
            return step
        # Concrete, for TensorFlow warns of calls that trace, which these need not.
        function = tf.function(step, input_signature=[spec], autograph=False)
        traced: Callable[[Any], Any] = function.get_concrete_function()
        return traced


def _drawn(iterator: Any) -> Iterator[Any]:
    while True:
        try:
            yield iterator.get_next()
        except tf.errors.OutOfRangeError:
            return


def assert_batch(
    x: Any,
    y: Any,
    *,
    specs: Any,
    regularized: list[int],
    classes: int,
    scales: Sequence[InputScale],
    ignored: Sequence[int] = (),
    padding: Sequence[Sequence[float]] = (),
    exclusive: bool | None = False,
    signed: bool = False,
) -> Any:
    """Refuse a batch inside of a compiled step, by the same rules; return the inputs."""
    x = in_structure(x, specs)
    leaves = keras.tree.flatten(x)
    checks = []
    for index, scale, values in zip(regularized, scales, padding, strict=True):
        if leaves[index] is None:
            continue
        leaf = tf.cast(leaves[index], tf.float32)
        slack = _RANGE_TOLERANCE * np.float32(scale.unit)
        low, high = scale.ends
        fine = (leaf >= low - slack) & (leaf <= high + slack)
        fine &= tf.math.is_finite(leaf)
        for value in values:
            fine |= leaf == value
        told: Any = (
            f"{_MARK} A batch leaves the declared range, or holds NaN: got lowest and highest",
            tf.reduce_min(leaf),
            tf.reduce_max(leaf),
            f"expected {_told(low)} to {_told(high)}. Declare the range with `harden(..., "
            f"input_range=)`, or mend the data. {_MARK}",
        )
        checks.append(tf.debugging.Assert(tf.reduce_all(fine), told))
    labels = tf.cast(keras.tree.flatten(y)[0], tf.float32)
    rows = labels.shape.rank == 2 and labels.shape[-1] == classes > 1
    if rows or classes == 1:
        lowest, highest = -1.0 if signed else 0.0, 1.0
    else:
        lowest, highest = 0.0, classes - 1.0
        # A class that counts nowhere may have any number.
        for number in ignored:
            labels = tf.where(labels == float(number), lowest, labels)
    told = (
        f"{_MARK} Labels are out of range: got lowest and highest",
        tf.reduce_min(labels),
        tf.reduce_max(labels),
        f"expected {lowest:g} to {highest:g} for a model with {classes} classes. {_MARK}",
    )
    checks.append(
        tf.debugging.Assert(tf.reduce_all((labels >= lowest) & (labels <= highest)), told)
    )
    if rows and exclusive:
        largest = tf.reduce_max(tf.reduce_sum(labels, -1))
        told = (f"{_MARK} Rows of labels name several classes: got a sum of", largest)
        told += (f"expected 1 {_EXCLUSIVE} {_MARK}",)
        checks.append(tf.debugging.Assert(largest <= 1.0 + _ROUNDING, told))
    with tf.control_dependencies([check for check in checks if check is not None]):
        return keras.tree.map_structure(lambda leaf: leaf if leaf is None else tf.identity(leaf), x)


def _told(end: Any) -> str:
    """Write an end of a range, of all columns where there is one for each."""
    return f"{float(end):g}" if np.ndim(end) == 0 else f"{np.round(np.ravel(end), 4).tolist()}"


def check_training_data(
    x: Any,
    y: Any,
    *,
    specs: Any,
    regularized: list[int],
    classes: int,
    scales: Sequence[InputScale],
    ignored: Sequence[int] = (),
    padding: Sequence[Sequence[float]] = (),
    exclusive: bool | None = False,
    signed: bool = False,
) -> Any:
    """Refuse data that would train something else; `signed` labels are -1 and 1."""
    x = in_structure(x, specs)
    leaves, wanted = keras.tree.flatten(x), keras.tree.flatten(specs)
    if len(leaves) != len(wanted):
        got = f"the columns {list(x)}" if isinstance(x, Mapping) else len(leaves)
        raise ValueError(
            f"The model takes {len(wanted)} inputs, {[spec.name for spec in wanted]}: got {got}. "
            "Pass them in the structure the model was built with."
        )
    if any(np.shape(leaf)[:1] == (0,) for leaf in leaves if not _is_sparse(leaf)):
        raise ValueError("The inputs are empty: got 0 examples, expected at least one.")
    outside: dict[str, tuple[float, float]] = {}
    for index, (leaf, spec) in enumerate(zip(leaves, wanted, strict=True)):
        if leaf is None:  # of an optional input
            continue
        if index not in regularized:  # anything the model takes, strings too
            _check_shape(leaf, spec)
            continue
        array = _as_array(leaf, spec.name)
        _check_shape(array, spec)
        position = regularized.index(index)
        values = padding[position] if padding else ()
        found = _check_values(array, spec.name, scales[position], values)
        outside |= {} if found is None else {spec.name: found}
    _refuse_ranges(outside, leaves, wanted, regularized, scales)
    labels = [leaf for leaf in keras.tree.flatten(y) if leaf is not None]
    if not labels:
        raise ValueError("Training needs labels: got y=None. Pass class indices or one-hot rows.")
    array = _as_array(labels[0], "y") if hasattr(labels[0], "shape") else np.zeros(())
    if array.ndim:  # Keras has its own message for lists
        _check_labels(array, len(leaves[0]), classes, ignored, -1.0 if signed else 0.0)
        if exclusive is not False and array.shape[1:] == (classes,) and classes > 1:
            _check_rows(array.sum(-1).max(), exclusive)
    return x


def _is_sparse(leaf: Any) -> bool:
    return isinstance(leaf, tf.SparseTensor) or hasattr(leaf, "tocoo")


def _as_array(leaf: Any, name: str) -> np.ndarray[Any, Any]:
    if _is_sparse(leaf):
        raise TypeError(
            f"`{name}` is sparse: got {type(leaf).__name__}, expected a dense array, "
            "for every entry has a gradient. Pass x.toarray(), or tf.sparse.to_dense(x)"
            "; a batch at a time where memory is short."
        )
    array = np.asarray(leaf)
    if array.dtype == object:  # columns of several types, as frames have them
        with suppress(TypeError, ValueError):
            array = array.astype(np.float32)
    if array.dtype.kind in "USO":
        raise TypeError(
            f"`{name}` is not numeric: got dtype {array.dtype}, expected floats or integers. "
            "Encode strings and ragged rows first, and fill what is missing."
        )
    return array


def _check_shape(leaf: Any, spec: tf.TensorSpec) -> None:
    shape = tuple(leaf.shape) if hasattr(leaf, "shape") else np.shape(leaf)
    if not spec.shape.is_compatible_with(shape):
        raise ValueError(
            f"Input `{spec.name}` has the wrong shape: got {shape}, expected "
            f"{tuple(spec.shape)}. A missing last axis is added by x[..., None]."
        )


def _ends_of(
    array: np.ndarray[Any, Any], padding: Sequence[float], columns: bool
) -> tuple[Any, Any]:
    low, high = np.inf, -np.inf
    for start in range(0, len(array), _CHUNK):
        chunk = array[start : start + _CHUNK]
        for value in padding:
            chunk = chunk[~np.all(chunk == value, axis=-1)]
        axes = tuple(range(chunk.ndim - 1)) if columns else None
        if chunk.size:
            low = np.minimum(low, chunk.min(axes))
            high = np.maximum(high, chunk.max(axes))
    return low, high


def _check_values(
    array: np.ndarray[Any, Any], name: str, scale: InputScale, padding: Sequence[float]
) -> tuple[float, float] | None:
    """Refuse NaN; return the ends of an input where they leave its range."""
    columns = np.ndim(scale.unit) > 0
    low, high = _ends_of(array, padding, columns)
    if np.any(low > high):  # nothing but padding
        return None
    if not np.isfinite([low, high]).all():
        raise ValueError(f"Input `{name}` holds NaN or infinity. Remove or fill those values.")
    ends, unit = scale.ends, np.asarray(scale.unit)
    slack = _RANGE_TOLERANCE * unit
    wrong = (low < ends[0] - slack) | (high > ends[1] + slack)
    if np.any(wrong):
        if columns:
            at = int(np.argmax(wrong))
            low, high, *told = (
                float(np.broadcast_to(end, np.shape(wrong))[at]) for end in (low, high, *ends)
            )
            raise ValueError(
                f"Column {at} of input `{name}` leaves its declared range: got {low:g} "
                f"to {high:g}, expected {told[0]:g} to {told[1]:g}. Change "
                "`harden(..., input_range=)`, or clip the data."
            )
        return float(low), float(high)
    if np.any((high > low) & (high - low < _SMALL_PART * unit)) and not columns:
        told = [float(end) for end in ends]
        warnings.warn(
            f"Input `{name}` uses little of the declared range: got {low:g} to "
            f"{high:g}, expected {told[0]:g} to {told[1]:g}. Penalties "
            "are per unit of that range: declare the one of the data.",
            stacklevel=2,
        )
    return None


def _refuse_ranges(
    outside: dict[str, tuple[float, float]],
    leaves: list[Any],
    wanted: list[Any],
    regularized: list[int],
    scales: Sequence[InputScale],
) -> None:
    """Name the range of all regularized inputs where one leaves the declared one."""
    if not outside:
        return
    name, (low, high) = next(iter(outside.items()))
    ends = [float(end) for end in scales[0].ends]
    found = {
        wanted[i].name: tuple(map(float, _ends_of(np.asarray(leaves[i]), (), False)))
        for i in regularized
    }
    union = min(e[0] for e in found.values()), max(e[1] for e in found.values())
    advice = (
        f"Declare it with `harden(..., input_range=({union[0]:g}, {union[1]:g}))`, "
        "or rescale the inputs."
    )
    widths = [end - start for start, end in found.values()]
    columns = len(wanted[regularized[0]].shape) == 2
    if len(found) > 1 and max(widths) > 2.0 * min(widths):
        each = ", ".join(f"'{n}': ({a:g}, {b:g})" for n, (a, b) in found.items())
        advice = (
            f"The ranges of the inputs differ: declare each, harden(..., input_range="
            f"{{{each}}}), so that radius and penalties mean the same in all; or "
            "'standardized' where adapted Normalization layers read them. One range "
            f"for all is input_range=({union[0]:g}, {union[1]:g})."
        )
    elif columns:
        advice += (
            " Where columns differ, declare (lows, highs), one number per column, or "
            "'standardized' where an adapted Normalization layer reads the input."
        )
    raise ValueError(
        f"Input `{name}` leaves the declared range: got {low:g} to {high:g}, expected "
        f"{ends[0]:g} to {ends[1]:g}. {advice}"
    )


def _check_rows(largest: float, exclusive: bool | None) -> None:
    if exclusive is None:
        raise ValueError(
            "Whether classes exclude each other is not known: got rows of labels and a loss of "
            "your own, which does not say it, on a model that returns logits. Pass `harden(..., "
            "multi_label=False)` for exclusive classes, multi_label=True for independent ones."
        )
    if largest > 1.0 + _ROUNDING:
        raise ValueError(
            f"Rows of labels name several classes: got a sum of {largest:g}, "
            f"expected 1 {_EXCLUSIVE}"
        )


def _check_labels(
    y: np.ndarray[Any, Any], examples: int, classes: int, ignored: Sequence[int], lowest: float
) -> None:
    if len(y) != examples:
        raise ValueError(f"Got {examples} inputs and {len(y)} labels: expected one each.")
    if not np.isfinite(y).all():
        raise ValueError("The labels hold NaN or infinity. Remove those examples.")
    rows = y.ndim == 2 and y.shape[1] == classes and classes > 1
    if rows or classes == 1:
        if y.min() < lowest or y.max() > 1:
            raise ValueError(
                f"Labels are out of range: got {y.min():g} to {y.max():g}, expected "
                f"{lowest:g} to 1. One-hot rows and binary labels lie between 0 and 1, "
                "those of a hinge loss between -1 and 1."
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
