"""The config of a wrapped model, without how it was compiled once."""

from __future__ import annotations

from typing import Any

import keras

from keras_jsigr.core.not_compiled import not_compiled


def base_config(model: keras.Model) -> dict[str, Any]:
    """Serialize a model that only its wrapper trains.

    Its own loss, metrics and optimizer have no part in it, and may not be loadable:
    a lambda, or functions that are not registered.

    Args:
        model: Any Keras model, compiled or not; it is left as it is.

    Returns:
        What `keras.saving.deserialize_keras_object` takes.

    Example:
        >>> import keras
        >>> from keras_jsigr.training.base_config import base_config
        >>> net = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        >>> net.compile(loss="mse")
        >>> "compile_config" in base_config(net), net.compiled
        (False, True)
    """
    with not_compiled(model):
        config: dict[str, Any] = without_compile_config(
            keras.saving.serialize_keras_object(model)
        )
    return config


def without_compile_config(config: Any) -> Any:
    """Leave out how models were compiled: files of earlier versions hold it.

    Args:
        config: A serialized model, or any part of one.

    Returns:
        A copy in which no serialized model has a `compile_config`.

    Example:
        >>> from keras_jsigr.training.base_config import without_compile_config
        >>> without_compile_config({"class_name": "A", "compile_config": {}})
        {'class_name': 'A'}
    """
    if isinstance(config, (list, tuple)):
        return type(config)(map(without_compile_config, config))
    if not isinstance(config, dict):
        return config
    drop = {"compile_config"} if "class_name" in config else set()
    return {k: without_compile_config(v) for k, v in config.items() if k not in drop}
