"""Checks before training: the adversary, the layers, the loss and the data."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_jsigr.config import JSIGRConfig
from keras_jsigr.core.heads import Head
from keras_jsigr.core.inputs import in_structure
from keras_jsigr.core.keras_compat import compiled_losses, leaf_layers


def check_adversary(
    adversary: Any,
    start_radius: float,
    input_range: tuple[float, float],
    regularized: list[int],
) -> None:
    """Refuse an adversary that cannot perturb the inputs a model trains on."""
    if isinstance(adversary, type):
        raise TypeError(
            f"Got the class {adversary.__name__} as adversary, expected an attack made "
            f"of it, such as {adversary.__name__}(epsilon=0.1)."
        )
    if not callable(getattr(adversary, "perturb", None)):
        raise TypeError(
            f"Got {type(adversary).__name__} as adversary, expected an attack with "
            "`perturb`, such as keras_jsigr.attacks.FGSM(epsilon=0.1)."
        )
    if start_radius > 0:
        raise ValueError(
            f"An adversary starts at the inputs: got start_radius={start_radius} "
            "beside it, expected 0. Attacks have a random start of their own: use "
            "`config.replace(start_radius=0.0)`."
        )
    if len(regularized) != 1:
        raise ValueError(
            f"An adversary perturbs one input: got {len(regularized)} "
            "regularized inputs. Choose one with `harden(..., inputs=[name])`."
        )
    given = getattr(adversary, "input_range", None)
    # An attack clips to its range: another one would leave the ball.
    if isinstance(given, tuple | list) and tuple(given) != input_range:
        raise ValueError(
            "The adversary belongs to inputs of another range: got input_range="
            f"{tuple(given)}, expected {input_range} as in the training. "
            f"Pass `input_range={input_range}` to the attack, or the range "
            "of the inputs to `harden`."
        )
    if getattr(adversary, "targeted", False) is True:
        raise ValueError(
            "A targeted adversary makes the model more certain of the labels it "
            "trains on: got targeted=True, expected False. Make it with "
            "`targeted=False`."
        )


def check_channels(model: keras.Model, config: JSIGRConfig) -> None:
    """Refuse layers with channels first, where maps or patches take them for last."""
    first = [
        layer.name
        for layer in leaf_layers(model)
        if getattr(layer, "data_format", None) == "channels_first"
    ]
    reads = any(penalty.needs_layout for penalty in config.build_penalties())
    patches = config.start_radius > 0 and max(config.start_patch_sizes) > 1
    if first and (reads or patches):
        raise ValueError(
            f"Maps and patches take the last axis for the channels: got channels first "
            f"in {first}, expected channels last. Build the layers so, and put a "
            "`keras.layers.Permute((2, 3, 1))` before them."
        )


def check_start_radius(config: JSIGRConfig, input_range: tuple[float, float]) -> None:
    """Refuse start points farther away than the inputs are wide."""
    width = input_range[1] - input_range[0]
    if config.start_radius > width:
        raise ValueError(
            f"`start_radius` is wider than the inputs: got {config.start_radius:g}, "
            f"expected at most {width:g}, the width of input_range={input_range}. Both "
            "are in the units of the inputs."
        )


def check_precision(model: keras.Model, config: JSIGRConfig) -> None:
    """Refuse differences between logits in half precision: they are rounding."""
    half = model.compute_dtype in ("float16", "bfloat16")
    if config.estimator == "finite_difference" and half:
        raise ValueError(
            "Differences between logits in half precision measure their rounding: "
            f"got estimator='finite_difference' and a model that computes in "
            f"{model.compute_dtype}, expected float32. Use estimator='jvp'."
        )


def warn_of_own_steps(model: keras.Model) -> None:
    """Warn of methods of the model's class that its hardened model does not call."""
    own = [
        name
        for name in (
            "train_step",
            "test_step",
            "predict_step",
            "compute_loss",
            "compute_metrics",
        )
        if getattr(type(model), name) is not getattr(keras.Model, name)
    ]
    if own:
        warnings.warn(
            f"`{model.name}` has a `{'` and a `'.join(own)}` of its own, which the "
            "hardened model does not call: its steps are its own, on the loss and "
            "metrics given to `compile`. Move what they add into those, or into a "
            "layer that calls `add_loss`.",
            stacklevel=3,
        )


# What losses can be reduced to that is no mean over the batch.
_NO_MEANS = ("sum", "none", None)


def resolved_losses(model: keras.Model) -> list[Any]:
    """List the losses of a compiled model, names turned into objects."""
    losses = compiled_losses(model)
    if not losses:
        raise ValueError(
            f"`{model.name}` has no loss: got `compile` without `loss`, expected a "
            "classification loss such as 'sparse_categorical_crossentropy'."
        )
    return [keras.losses.get(loss) for loss in losses]


def check_loss(model: keras.Model, head: Head) -> None:
    """Refuse a loss that reads the outputs as something they are not."""
    for loss in resolved_losses(model):
        name = getattr(loss, "name", None) or getattr(loss, "__name__", str(loss))
        if _function(loss) in _REGRESSION_FUNCTIONS:
            raise ValueError(
                f"J-SIGR hardens classifiers: got the regression loss '{name}', "
                "expected a cross entropy over classes."
            )
        reduction = getattr(loss, "reduction", "sum_over_batch_size")
        if reduction in _NO_MEANS:
            raise ValueError(
                f"Penalties are means over the batch: got '{name}' with reduction="
                f"{reduction!r}, beside which their weights mean something else at "
                "every batch size, expected a mean. Leave reduction at its default, "
                "and multiply the learning rate by the batch size if it was for that."
            )
        from_logits = _from_logits(loss)
        if head.kind == "linear" and _function(loss) in _ALWAYS_PROBABILITIES:
            raise ValueError(
                f"Loss and head disagree: got '{name}', which reads probabilities, on "
                "a model that returns logits. Give the last layer "
                "activation='softmax' (or 'sigmoid'), or use a cross entropy with "
                "from_logits=True."
            )
        if from_logits is None or from_logits == (head.kind == "linear"):
            continue
        if head.kind == "linear":
            raise ValueError(
                f"Loss and head disagree: got '{name}' with from_logits=False on a "
                "model that returns logits. Use from_logits=True in the loss, or give "
                "the last layer activation='softmax' (or 'sigmoid')."
            )
        raise ValueError(
            f"Loss and head disagree: got '{name}' with from_logits=True on a model "
            f"that ends in a {head.kind}. Use from_logits=False in the loss, or "
            "remove the activation of the last layer."
        )


_REGRESSION_FUNCTIONS = tuple(
    keras.losses.get(name)
    for name in ("mse", "mae", "mape", "msle", "huber", "log_cosh")
)


# No argument of theirs says so: of logits they make NaN, or a number without meaning.
_ALWAYS_PROBABILITIES = (
    keras.losses.categorical_generalized_cross_entropy,
    keras.losses.dice,
    keras.losses.kl_divergence,
    keras.losses.poisson,
    keras.losses.tversky,
)


_PROBABILITY_FUNCTIONS = tuple(
    keras.losses.get(name)
    for name in (
        "categorical_crossentropy",
        "sparse_categorical_crossentropy",
        "binary_crossentropy",
        "categorical_focal_crossentropy",
        "binary_focal_crossentropy",
    )
)


def _from_logits(loss: Any) -> bool | None:
    """Tell what the loss expects; `None` if it does not say."""
    if isinstance(loss, keras.losses.Loss):
        value = loss.get_config().get("from_logits")
        return None if value is None else bool(value)
    return False if loss in _PROBABILITY_FUNCTIONS else None


def _function(loss: Any) -> Any:
    """Return the function that a loss of Keras' own wraps, else the loss itself."""
    return getattr(loss, "fn", loss)


_LIKELIHOOD_FUNCTIONS = tuple(
    keras.losses.get(name)
    for name in ("categorical_crossentropy", "sparse_categorical_crossentropy")
)


def is_cross_entropy(model: keras.Model) -> bool:
    """Tell whether the loss is the mean of `-log p` of the true class."""
    losses = map(_function, resolved_losses(model))
    return all(loss in _LIKELIHOOD_FUNCTIONS for loss in losses)


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
    """Refuse training data that would train something else than the user thinks."""
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


def check_head(head: Head, classes: int) -> None:
    """Refuse a head with an activity regularizer, and a softmax of one unit."""
    if head.kind == "softmax" and classes == 1:
        raise ValueError(
            "The softmax of one unit is always 1: got one output, expected two classes "
            "or more. Use activation='sigmoid' for a single unit."
        )
    if head.layer is not None and head.layer.activity_regularizer is not None:
        kind = type(head.layer.activity_regularizer).__name__
        raise ValueError(
            f"The head `{head.layer.name}` regularizes its probabilities: got "
            f"activity_regularizer={kind}, expected None. Training sees the logits "
            "there: add the term to the loss given to `compile`."
        )
