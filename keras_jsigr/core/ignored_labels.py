"""The labels that say: leave this example out."""

from __future__ import annotations

import keras

from keras_jsigr.core.keras_private import compiled_losses


def ignored_labels(model: keras.Model) -> list[int]:
    """List the labels whose examples the compiled losses leave out.

    Args:
        model: A Keras model, compiled or not.

    Returns:
        The `ignore_class` of its losses; empty without one, or without a loss.

    Example:
        >>> import keras
        >>> from keras_jsigr.core.ignored_labels import ignored_labels
        >>> net = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
        >>> net.compile(
        ...     loss=keras.losses.SparseCategoricalCrossentropy(ignore_class=-1)
        ... )
        >>> ignored_labels(net)
        [-1]
    """
    labels = [getattr(x, "ignore_class", None) for x in compiled_losses(model)]
    return [label for label in labels if label is not None]
