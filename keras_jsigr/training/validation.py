"""The data that `fit` validates on, found among its arguments."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import keras


@dataclass(frozen=True)
class Validation:
    """The validation data of a `fit`, as `keras.Model.evaluate` takes it.

    Attributes:
        x: Inputs, or a dataset that holds the labels too.
        y: Labels, or `None`.
        batch_size: Examples per batch; `None` leaves it to Keras.
        steps: Batches to look at; `None` means all.
    """

    x: Any
    y: Any = None
    batch_size: int | None = None
    steps: int | None = None


def validation_of(arguments: dict[str, Any]) -> Validation:
    """Find the validation data among the arguments of `fit`.

    Args:
        arguments: Arguments of `keras.Model.fit` by name.

    Returns:
        The data, cut off the training arrays as Keras does for `validation_split`.

    Raises:
        ValueError: If there is none.

    Example:
        >>> import numpy as np
        >>> from keras_jsigr.training.validation import validation_of
        >>> x, y = np.zeros((10, 2)), np.arange(10)
        >>> validation_of({"x": x, "y": y, "validation_split": 0.2}).y.tolist()
        [8, 9]
    """
    data = arguments.get("validation_data")
    split = arguments.get("validation_split", 0.0)
    batch_size = arguments.get("validation_batch_size") or arguments.get("batch_size")
    if data is not None:
        x, y, _ = keras.utils.unpack_x_y_sample_weight(data)
        return Validation(x, y, batch_size, arguments.get("validation_steps"))
    if not split:
        raise ValueError(
            "penalty_weights='auto' watches the clean accuracy: got no validation "
            "data, expected `fit(..., validation_data=(x, y))` or `validation_split`."
        )
    x, y = arguments["x"], arguments.get("y")
    for leaf in keras.tree.flatten((x, y)):
        if not hasattr(leaf, "shape"):
            raise ValueError(
                "validation_split cuts arrays and tensors: got "
                f"{type(leaf).__name__}. Pass validation_data= instead."
            )
    start = math.floor(len(keras.tree.flatten(x)[0]) * (1.0 - split))
    x, y = keras.tree.map_structure(lambda leaf: leaf[start:], (x, y))
    return Validation(x, y, batch_size)
