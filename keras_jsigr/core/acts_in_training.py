"""Whether layers of a model do in training what they do not do in inference."""

from __future__ import annotations

import inspect

import keras

from keras_jsigr.core.keras_private import leaf_layers

# Settings of Keras' random layers; a layer is still where all that it has are zero.
_LEVELS = ("rate", "stddev", "dropout", "recurrent_dropout")


def acts_in_training(model: keras.Model) -> bool:
    """Tell whether some layer depends on `training`, as far as Keras' layers say.

    Of Keras' innermost layers those do that draw random numbers, unless their level is
    zero, and batch normalization, unless it is frozen; of others those whose `call`
    takes `training`.

    Args:
        model: A built Keras model.

    Returns:
        False if no innermost layer does. What composite layers do by themselves is not
        seen.

    Example:
        >>> import keras
        >>> from keras_jsigr.core.acts_in_training import acts_in_training
        >>> layer = keras.layers.BatchNormalization()
        >>> net = keras.Sequential([keras.Input((2,)), layer])
        >>> acts_in_training(net)
        True
        >>> layer.trainable = False
        >>> acts_in_training(net)
        False
    """
    return any(_acts(layer) for layer in leaf_layers(model))


def _acts(layer: keras.Layer) -> bool:
    if not type(layer).__module__.startswith("keras."):
        return "training" in inspect.signature(layer.call).parameters
    if isinstance(layer, keras.layers.BatchNormalization):
        return bool(layer.trainable)
    parts = vars(layer).values()
    if not any(isinstance(part, keras.random.SeedGenerator) for part in parts):
        return False
    levels = [getattr(layer, name) for name in _LEVELS if hasattr(layer, name)]
    return any(levels) if levels else True
