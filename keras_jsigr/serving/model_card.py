"""The model card: what was exported, how it was trained, and what was not tested."""

from __future__ import annotations

import importlib.metadata
import json
import platform
from datetime import UTC, datetime
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_jsigr.core.head_kind import head_kind
from keras_jsigr.saliency.fingerprint import fingerprint_weights

CARD_FORMAT = 1
_NOT_EVALUATED = (
    "No robustness was measured for this card. Evaluate the model under attack before "
    "relying on it."
)


def model_card(
    model: Any,
    inputs: list[dict[str, Any]],
    endpoints: dict[str, Any],
    threat_model: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Describe a hardened model.

    Args:
        model: A `JSIGRModel`.
        inputs: Name, dtype and shape of every input.
        endpoints: Inputs and outputs of every endpoint.
        threat_model: Entries that replace or extend those of the card's
            `threat_model`, for example `{"epsilon": 0.1, "evaluated": True}`.

    Returns:
        The card, JSON-ready.

    Raises:
        TypeError: If `threat_model` is not a dict of JSON values.

    Example:
        >>> import keras
        >>> from keras_jsigr.model import JSIGRModel
        >>> from keras_jsigr.serving.model_card import model_card
        >>> net = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
        >>> model_card(JSIGRModel(net), [], {})["parameters"]
        15
    """
    low, high = (float(bound) for bound in model.settings.input_range)
    return {
        "format": CARD_FORMAT,
        "name": model.base.name,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": _versions(),
        "method": {
            "name": "J-SIGR",
            "reference": "arXiv 2207.13036",
            "note": "implemented from the abstract of arXiv 2207.13036 and the works "
            "it rests on",
        },
        "settings": {
            **model.settings.get_config(),
            **model.adjusted(),
            **model.constraint_state(),
        },
        "adversary": model.adversary and _described(model.adversary),
        "inputs": inputs,
        "input_range": [low, high],
        "classes": int(model.classes),
        "head": {
            "layer": model.head.kind,
            "decision": head_kind(model, model.head, model.classes),
        },
        "endpoints": endpoints,
        "parameters": int(model.base.count_params()),
        "weights_sha256": fingerprint_weights(model.base),
        "threat_model": checked_threat_model(threat_model, [low, high]),
    }


def checked_threat_model(
    threat_model: dict[str, Any] | None, input_range: list[float]
) -> dict[str, Any]:
    """Complete the statement on the threat model.

    Args:
        threat_model: What is known of it.
        input_range: Range of the inputs.

    Returns:
        The whole statement.

    Raises:
        TypeError: If it is not a dict of JSON values.

    Example:
        >>> from keras_jsigr.serving.model_card import checked_threat_model
        >>> checked_threat_model({"epsilon": 0.1}, [0.0, 1.0])["evaluated"]
        False
    """
    if not isinstance(threat_model, (dict, type(None))):
        raise TypeError(
            f"`threat_model` must be a dict: got {type(threat_model).__name__}. Pass "
            "for example {'epsilon': 0.1, 'evaluated': True, 'note': '...'}."
        )
    full: dict[str, Any] = {
        "norm": "linf",
        "epsilon": None,
        "input_range": input_range,
        "evaluated": False,
        **(threat_model or {}),
    }
    if not full["evaluated"]:
        full = {"note": _NOT_EVALUATED, **full}
    try:
        json.dumps(full, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"`threat_model` must hold JSON values: {error}. Turn arrays and NumPy "
            "numbers into Python lists and numbers."
        ) from error
    return full


def _described(adversary: Any) -> Any:
    try:
        return keras.saving.serialize_keras_object(adversary)
    except (TypeError, ValueError, NotImplementedError):
        return {"class_name": type(adversary).__qualname__}  # of the user's own kind


def _versions() -> dict[str, str]:
    try:
        own = importlib.metadata.version("keras-jsigr")
    except importlib.metadata.PackageNotFoundError:
        own = "unknown"
    return {
        "keras_jsigr": own,
        "keras": keras.__version__,
        "tensorflow": tf.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
