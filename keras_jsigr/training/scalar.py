"""Scalar state of a model: saved with it, moved without a retrace."""

from __future__ import annotations

from typing import Any

import keras


def add_scalar(
    model: keras.Model, name: str, value: float, dtype: str = "float32", **kwargs: Any
) -> Any:
    """Give a model a scalar variable that no optimizer trains.

    Args:
        model: The owner.
        name: Name of the variable.
        value: Initial value.
        dtype: Its dtype, kept under mixed precision.
        **kwargs: Passed to `keras.Layer.add_weight`.

    Returns:
        The variable.

    Example:
        >>> import keras
        >>> from keras_jsigr.training.scalar import add_scalar
        >>> net = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        >>> add_scalar(net, "temperature", 2.0).trainable
        False
    """
    constant = keras.initializers.Constant(value)
    return model.add_weight(
        (), constant, dtype, trainable=False, autocast=False, name=name, **kwargs
    )


def read_scalar(variable: Any) -> float:
    """Read a scalar variable from outside of a step, mirrored on devices or not.

    Args:
        variable: The variable.

    Returns:
        Its value.

    Example:
        >>> import keras
        >>> from keras_jsigr.training.scalar import add_scalar, read_scalar
        >>> net = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        >>> read_scalar(add_scalar(net, "temperature", 2.0))
        2.0
    """
    return float(keras.ops.convert_to_numpy(variable))
