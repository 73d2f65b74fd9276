"""What the losses of a model divide by."""

from __future__ import annotations

import keras

from keras_jsigr.core.keras_private import compiled_losses


def averages_over_weights(model: keras.Model) -> bool:
    """Tell whether a compiled loss is the mean over the weights of the examples.

    Keras divides by the number of examples, whatever their weights, unless the loss has
    `reduction="mean_with_sample_weight"`.

    Args:
        model: A Keras model, compiled or not.

    Returns:
        Whether one of its losses has this reduction.

    Example:
        >>> import keras
        >>> from keras_jsigr.core.loss_reduction import averages_over_weights
        >>> net = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
        >>> net.compile(loss="sparse_categorical_crossentropy")
        >>> averages_over_weights(net)
        False
    """
    reductions = [getattr(loss, "reduction", None) for loss in compiled_losses(model)]
    return "mean_with_sample_weight" in reductions
