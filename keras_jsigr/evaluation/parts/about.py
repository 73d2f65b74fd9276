"""What was evaluated, with what versions of what."""

from __future__ import annotations

import platform
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_jsigr.core.unwrapped import unwrapped


def about_model(
    model: Any, input_shape: tuple[int, ...], classes: int
) -> dict[str, Any]:
    """Describe a model for the report.

    Args:
        model: A Keras classifier, a hardened model or a callable.
        input_shape: Of one example.
        classes: Number of classes.

    Returns:
        `name`, `parameters` (not of callables), `classes`, `input_shape`,
        `hardened` and `settings`.

    Example:
        >>> from keras_jsigr.evaluation.parts.about import about_model
        >>> about_model(lambda x: x, (2,), 2)["hardened"]
        False
    """
    inner = unwrapped(model)
    hardened = inner is not model
    settings = model.settings if hardened else None
    count = {}
    if isinstance(inner, keras.Model):
        count["parameters"] = int(inner.count_params())
    return {
        "name": model_name(inner),
        **count,
        "classes": classes,
        "input_shape": list(input_shape),
        "hardened": hardened,
        "settings": None if settings is None else settings.get_config(),
    }


def model_name(model: Any) -> str:
    """Return what a model is called.

    Args:
        model: A Keras model, another object with a name, or a function.

    Returns:
        Its name, or that of its class.

    Example:
        >>> from keras_jsigr.evaluation.parts.about import model_name
        >>> model_name(len)
        'len'
    """
    for attribute in ("name", "__name__"):
        name = getattr(model, attribute, None)
        if isinstance(name, str) and name:
            return name
    return type(model).__name__


def versions() -> dict[str, str]:
    """Return the versions of all that takes part.

    Returns:
        By name: `python`, `tensorflow`, `keras`, `numpy`, `keras_jsigr`.

    Example:
        >>> from keras_jsigr.evaluation.parts.about import versions
        >>> sorted(versions())
        ['keras', 'keras_jsigr', 'numpy', 'python', 'tensorflow']
    """
    import keras_jsigr

    return {
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "numpy": np.__version__,
        "keras_jsigr": keras_jsigr.__version__,
    }
