"""The only file that touches names Keras does not export, each with its reason.

Keras keeps no public way to walk *every* sub-layer of a model: `Model.layers` stops
at the first level and skips layers held by other layers. `tests/core` pins each use.
"""

from __future__ import annotations

from typing import Any

import keras


def all_layers(model: keras.Layer) -> list[keras.Layer]:
    """List a model or layer and all layers it holds, parents first.

    Args:
        model: Any Keras model or layer.

    Returns:
        The layers, each once, `model` itself among them.

    Example:
        >>> import keras
        >>> from keras_jsigr.core.keras_private import all_layers
        >>> net = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        >>> [type(layer).__name__ for layer in all_layers(net)][0]
        'Sequential'
    """
    layers = model._flatten_layers(include_self=True, recursive=True)
    return list({id(layer): layer for layer in layers}.values())


def leaf_layers(model: keras.Model) -> list[keras.Layer]:
    """List the layers of `model` that hold no other layers, in order of creation.

    Args:
        model: Any Keras model; nested models and composite layers are opened.

    Returns:
        The innermost layers, each once.

    Example:
        >>> import keras
        >>> from keras_jsigr.core.keras_private import leaf_layers
        >>> net = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        >>> [type(layer).__name__ for layer in leaf_layers(net)]
        ['Dense']
    """
    leaves: list[keras.Layer] = []
    seen: set[int] = set()
    for layer in model._flatten_layers(include_self=False, recursive=True):
        inner = list(layer._flatten_layers(include_self=False, recursive=False))
        if inner or id(layer) in seen or isinstance(layer, keras.layers.InputLayer):
            continue
        seen.add(id(layer))
        leaves.append(layer)
    return leaves


def compiled_losses(model: keras.Model) -> list[Any]:
    """List the losses `model` was compiled with, as the user wrote them.

    `Model.loss` is public but is what the user passed; `get_compile_config` would
    serialize the losses and lose custom objects.

    Args:
        model: A compiled Keras model.

    Returns:
        A flat list of strings, `keras.losses.Loss` objects or functions.

    Example:
        >>> import keras
        >>> from keras_jsigr.core.keras_private import compiled_losses
        >>> net = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        >>> net.compile(loss="mse")
        >>> compiled_losses(net)
        ['mse']
    """
    return [loss for loss in keras.tree.flatten(getattr(model, "loss", None)) if loss]
