"""Whether the classes of a model exclude each other."""

from __future__ import annotations

import keras

from keras_jsigr.core.heads import Head
from keras_jsigr.core.keras_private import compiled_losses
from keras_jsigr.core.scores import HeadKind


def head_kind(model: keras.Model, head: Head, classes: int) -> HeadKind:
    """Tell whether the classes exclude each other.

    Args:
        model: A Keras model, compiled or not.
        head: Its head.
        classes: Number of outputs.

    Returns:
        `"sigmoid"` for a sigmoid head, a binary loss or a single output, else
        `"softmax"`.

    Example:
        >>> import keras
        >>> from keras_jsigr.core.head_kind import head_kind
        >>> from keras_jsigr.core.heads import Head
        >>> net = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        >>> head_kind(net, Head("linear"), 1)
        'sigmoid'
    """
    if head.kind != "linear":
        return head.kind
    if classes == 1:
        return "sigmoid"
    binary = (keras.losses.BinaryCrossentropy, keras.losses.BinaryFocalCrossentropy)
    losses = [keras.losses.get(loss) for loss in compiled_losses(model)]
    return "sigmoid" if any(isinstance(x, binary) for x in losses) else "softmax"
