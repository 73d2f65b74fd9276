"""Let a float32 network compute in float64 for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import keras

from keras_jsigr.core.keras_private import all_layers


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
    """Let the layers of a model compute in float64 inside the block.

    Weights stay the float32 variables they are and are cast on reading, as in mixed
    precision, only upwards: finite differences need the digits.

    Args:
        model: A built Keras model or layer.

    Yields:
        Nothing.
    """
    layers = all_layers(model)
    before = [layer.dtype_policy for layer in layers]
    try:
        for layer in layers:
            layer.dtype_policy = UpwardPolicy()
        yield
    finally:
        for layer, policy in zip(layers, before, strict=True):
            layer.dtype_policy = policy
