"""Scalar state of a model: saved with it, moved without a retrace."""

from __future__ import annotations

from typing import Any

import keras


def add_scalar_variable(
    model: keras.Model, name: str, value: float, dtype: str = "float32", **kwargs: Any
) -> Any:
    """Give a model a scalar variable that no optimizer trains."""
    constant = keras.initializers.Constant(value)
    return model.add_weight(
        (), constant, dtype, trainable=False, autocast=False, name=name, **kwargs
    )


def read_scalar(variable: Any) -> float:
    """Read a scalar variable from outside of a step, mirrored on devices or not."""
    return float(keras.ops.convert_to_numpy(variable))
