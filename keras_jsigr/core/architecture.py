"""What a model does with its weights, as text that two equal models share."""

from __future__ import annotations

import json
import warnings
from typing import Any

import keras

from keras_jsigr.core.keras_private import all_layers

# Where a configuration names layers, and where it has shapes: the batch axis of these
# is that of the first batch that a model without an `Input` met.
_REFERENCES = ("name", "keras_history", "input_layers", "output_layers")
_SHAPES = ("batch_shape", "input_shape", "build_input_shape")


def architecture_of(model: keras.Model) -> str:
    """Say what a model does with its weights, equal for equal models.

    Its configuration without the names of layers, without the compile state, and
    whether layers are frozen or not: that plays no part in inference.

    Args:
        model: Any Keras model.

    Returns:
        JSON, or the name of the class of a model that has no configuration.

    Example:
        >>> import keras
        >>> from keras_jsigr.core.architecture import architecture_of
        >>> def net(activation):
        ...     layer = keras.layers.Dense(2, activation=activation)
        ...     return keras.Sequential([keras.Input((3,)), layer])
        >>> architecture_of(net("relu")) == architecture_of(net("relu"))
        True
        >>> architecture_of(net("relu")) == architecture_of(net("silu"))
        False
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            config = keras.saving.serialize_keras_object(model)
    except Exception:
        # A subclassed model without `get_config`: its weights have to do.
        return type(model).__qualname__
    # Keras numbers layers through the whole process: the same model built twice has
    # other names. What counts is their order.
    layers = all_layers(model)
    named = [*layers, *(op for f in layers for op in getattr(f, "operations", []))]
    names: dict[str, str] = {}
    for layer in named:
        names.setdefault(layer.name, f"#{len(names)}")
    plain = _in_inference(config, names)
    return json.dumps(plain, sort_keys=True, default=lambda value: type(value).__name__)


def _in_inference(value: Any, names: dict[str, str], key: str = "") -> Any:
    if isinstance(value, dict):
        # Frozen layers read as trainable ones, so that what was made from a model
        # before it was frozen remains its own.
        return {
            str(k): k == "trainable" or _in_inference(item, names, str(k))
            for k, item in value.items()
            if k != "compile_config"
        }
    if isinstance(value, list | tuple):
        if key in _SHAPES and value and not isinstance(value[0], dict | list | tuple):
            value = [None, *value[1:]]
        inner = key if key in (*_REFERENCES, *_SHAPES) else ""
        return [_in_inference(item, names, inner) for item in value]
    # An activation may be called as a layer is.
    refers = key in _REFERENCES and isinstance(value, str)
    return names.get(value, value) if refers else value
