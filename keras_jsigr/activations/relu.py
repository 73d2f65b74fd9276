"""What counts as a ReLU."""

from __future__ import annotations

import keras
import tensorflow as tf

RELUS = (
    keras.activations.relu,
    keras.activations.relu6,
    keras.ops.relu,
    keras.ops.relu6,
    tf.nn.relu,
    tf.nn.relu6,
)
# Functional models record `keras.ops.relu(x)` as operations; Keras exports no classes.
RELU_OPERATIONS = ("Relu", "Relu6", "ReLU")


def relu_attributes(layer: keras.Layer) -> list[str]:
    """List the attributes of a layer that hold a ReLU function.

    Args:
        layer: A Keras layer.

    Returns:
        Names, such as `["activation"]`.

    Example:
        >>> import keras
        >>> from keras_jsigr.activations.relu import relu_attributes
        >>> relu_attributes(keras.layers.Dense(1, activation="relu"))
        ['activation']
    """
    return [
        name
        for name, value in vars(layer).items()
        if any(value is relu for relu in RELUS)
    ]


def has_relu(layer: keras.Layer) -> bool:
    """Tell whether a layer applies a ReLU.

    Args:
        layer: A Keras layer.

    Returns:
        True for `ReLU` layers and for layers that hold a ReLU function.

    Example:
        >>> import keras
        >>> from keras_jsigr.activations.relu import has_relu
        >>> has_relu(keras.layers.ReLU())
        True
    """
    return isinstance(layer, keras.layers.ReLU) or bool(relu_attributes(layer))
