"""Fingerprints that tie a cache to the model and the data it was made from."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_jsigr.core.keras_compat import all_layers, uncompiled
from keras_jsigr.core.logits import LogitsFn, base_model

# The keys of a configuration that name layers, and those that hold shapes. A model
# without an `Input` has the size of its first batch in its shapes.
_REFERENCES = ("name", "keras_history", "input_layers", "output_layers")
_SHAPES = ("batch_shape", "input_shape", "build_input_shape")
# Where registered classes were when the first caches were written.
_FIRST_MODULES = {"keras_jsigr>Swish": "keras_jsigr.activations.swish"}
_ROWS = 1024


def architecture_of(model: keras.Model) -> str:
    """Return a text that two models share if they do the same with their weights."""
    try:
        config = keras.saving.serialize_keras_object(uncompiled(model))
    except Warning:  # of a lambda, where the user turned warnings into errors
        raise
    except Exception:
        # A subclassed model without `get_config`: the class and the weights must do.
        return type(model).__qualname__
    # Keras numbers layers through the whole process, so a model that is built twice
    # gets other names: number the layers by their order.
    layers = all_layers(model)
    named = [*layers, *(op for f in layers for op in getattr(f, "operations", []))]
    names: dict[str, str] = {}
    for layer in named:
        names.setdefault(layer.name, f"#{len(names)}")
    plain = _in_inference(config, names)
    return json.dumps(plain, sort_keys=True, default=lambda value: type(value).__name__)


def _in_inference(value: Any, names: dict[str, str], key: str = "") -> Any:
    """Leave out of a configuration what does not matter to the model's outputs."""
    if isinstance(value, dict):
        if value.get("registered_name") in _FIRST_MODULES:
            value = {**value, "module": _FIRST_MODULES[value["registered_name"]]}
        # Every layer reads as trainable: freezing a model keeps its fingerprint.
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
    # Only these keys: an activation may have the name of a layer.
    refers = key in _REFERENCES and isinstance(value, str)
    return names.get(value, value) if refers else value


def fingerprint_array(data: Any) -> str:
    """Hash the shape and the values of an array."""
    if data is None:
        return "none"
    data = np.asarray(data)
    digest = hashlib.sha256(str(data.shape).encode())
    for start in range(0, len(data), _ROWS):
        part = data[start : start + _ROWS]
        if part.dtype.kind in "iub" and part.dtype != np.uint8:
            part = part.astype("<i8")
        elif part.dtype.kind == "f":
            part = part.astype("<f4")
        digest.update(np.ascontiguousarray(part).tobytes())
    return digest.hexdigest()


def fingerprint_model(model: Any, logits_fn: LogitsFn, x: Any) -> str:
    """Hash what a model computes: its weights and what it does with them."""
    digest, model = hashlib.sha256(), base_model(model)
    if not isinstance(model, keras.Model):
        answers = np.asarray(logits_fn(x[:16]), np.float32).round(3) + np.float32(0.0)
        digest.update(str(answers.shape).encode() + answers.tobytes())
        return "logits:" + digest.hexdigest()
    digest.update((architecture_of(model) + fingerprint_weights(model)).encode())
    return "model:" + digest.hexdigest()


def fingerprint_weights(model: keras.Model) -> str:
    """Hash the shapes and bytes of the weights of a model."""
    digest = hashlib.sha256()
    for weight in model.weights:
        value = np.ascontiguousarray(tf.convert_to_tensor(weight))
        digest.update(f"{value.dtype}{value.shape}".encode() + value.tobytes())
    return digest.hexdigest()
