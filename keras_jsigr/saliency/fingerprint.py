"""Fingerprints that tie a cache to the model and the data it was made from."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_jsigr.core.architecture import architecture_of
from keras_jsigr.core.logits import LogitsFn

_ROWS = 1024


def fingerprint_array(data: Any) -> str:
    """Hash the shape and the values of an array.

    Values are read in one canonical type (integers as int64, uint8 as uint8, floats as
    float32), so that the same data in another width gives the same fingerprint.

    Args:
        data: Array or tensor `(N, ...)`, or `None`.

    Returns:
        SHA-256, hexadecimal; `"none"` for `None`.

    Example:
        >>> import numpy as np
        >>> from keras_jsigr.saliency.fingerprint import fingerprint_array
        >>> a = np.arange(3)
        >>> fingerprint_array(a) == fingerprint_array(a.astype("int32"))
        True
    """
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
    """Hash what a model computes: its weights and what it does with them.

    A Keras model gives the SHA-256 over the shapes and bytes of its weights and its
    configuration, see `architecture_of`. Any other callable gives that of its logits on
    the first 16 examples, to three digits.

    Args:
        model: A Keras model or a callable.
        logits_fn: Its logits, from `as_logits`.
        x: Data `(N, *S)`.

    Returns:
        SHA-256, hexadecimal, after `model:` or `logits:`.

    Example:
        >>> import numpy as np
        >>> from keras_jsigr.saliency.fingerprint import fingerprint_model
        >>> fingerprint_model(None, lambda x: x, np.ones((1, 2)))[:7]
        'logits:'
    """
    digest = hashlib.sha256()
    if not isinstance(model, keras.Model):
        answers = np.asarray(logits_fn(x[:16]), np.float32).round(3) + np.float32(0.0)
        digest.update(str(answers.shape).encode() + answers.tobytes())
        return "logits:" + digest.hexdigest()
    digest.update((architecture_of(model) + fingerprint_weights(model)).encode())
    return "model:" + digest.hexdigest()


def fingerprint_weights(model: keras.Model) -> str:
    """Hash the shapes and bytes of the weights of a model.

    Args:
        model: A built Keras model.

    Returns:
        SHA-256, hexadecimal.

    Example:
        >>> import keras
        >>> from keras_jsigr.saliency.fingerprint import fingerprint_weights
        >>> net = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        >>> len(fingerprint_weights(net))
        64
    """
    digest = hashlib.sha256()
    for weight in model.weights:
        value = np.ascontiguousarray(tf.convert_to_tensor(weight))
        digest.update(f"{value.dtype}{value.shape}".encode() + value.tobytes())
    return digest.hexdigest()


def check_identity(
    found: Mapping[str, Any], wanted: Mapping[str, Any], path: Any
) -> None:
    """Refuse a cache that was built from something else, naming what differs.

    Args:
        found: Settings and fingerprints in the file.
        wanted: Those asked for.
        path: The file, for the message.

    Raises:
        ValueError: If any of them differs.

    Example:
        >>> from keras_jsigr.saliency.fingerprint import check_identity
        >>> check_identity({"grid": 5}, {"grid": 5}, "cache.npz")
    """
    differing = [
        f"{name} (got {found.get(name)!r}, expected {value!r})"
        for name, value in wanted.items()
        if found.get(name) != value
    ]
    if differing:
        raise ValueError(
            f"'{path}' holds other maps; it differs in {'; '.join(differing)}. "
            "Choose another path, or build again with `overwrite=True`."
        )
