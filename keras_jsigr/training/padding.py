"""The steps of a sequence that a `Masking` layer leaves out stay left out."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from keras_jsigr.core.keras_private import leaf_layers


def padding_values(model: keras.Model) -> list[float]:
    """List what the `Masking` layers of a model take for padding.

    Args:
        model: A Keras model.

    Returns:
        The mask values, each once; empty without such layers.

    Example:
        >>> import keras
        >>> from keras_jsigr.training.padding import padding_values
        >>> net = keras.Sequential(
        ...     [keras.Input((3, 2)), keras.layers.Masking(), keras.layers.LSTM(2)]
        ... )
        >>> padding_values(net)
        [0.0]
    """
    layers = leaf_layers(model)
    masking = [each for each in layers if isinstance(each, keras.layers.Masking)]
    return list(dict.fromkeys(float(layer.mask_value) for layer in masking))


def leave_padding(moved: Any, x: Any, values: list[float]) -> Any:
    """Undo a move of the inputs at the steps that are padding.

    Any move would make them steps to look at, and sequences longer than they are.

    Args:
        moved: Float tensor `(B, *S)`: the inputs elsewhere.
        x: The inputs, of this shape and dtype.
        values: Of `padding_values`. A step is padding if all its features are one.

    Returns:
        Float tensor `(B, *S)`.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.training.padding import leave_padding
        >>> x = tf.constant([[[1.0, 0.0], [0.0, 0.0]]])
        >>> leave_padding(x + 0.5, x, [0.0]).numpy().tolist()
        [[[1.5, 0.5], [0.0, 0.0]]]
    """
    for value in values:
        padding = tf.reduce_all(tf.equal(x, tf.cast(value, x.dtype)), -1, keepdims=True)
        moved = tf.where(padding, x, moved)
    return moved
