"""The model card: what was exported, how it was trained, what was not tested."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_jsigr.core.files import file_sha256, local_path
from keras_jsigr.core.heads import head_kind
from keras_jsigr.core.logits import known_epsilon
from keras_jsigr.saliency.fingerprint import fingerprint_weights

CARD_NAME = "model_card.json"
CARD_FORMAT = 1
NOT_EVALUATED = (
    "No robustness was measured for this card. Evaluate the model under attack before "
    "relying on it."
)
_SECTIONS: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("format", "classes", "parameters"), int),
    **dict.fromkeys(("name", "created", "weights_sha256"), str),
    **dict.fromkeys(("versions", "method", "settings", "head"), dict),
    **dict.fromkeys(("endpoints", "threat_model"), dict),
    "inputs": list,
    "input_range": (list, dict),
    "adversary": (dict, type(None)),
}


def model_card(
    model: Any,
    inputs: list[dict[str, Any]],
    endpoints: dict[str, Any],
    threat_model: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Describe a hardened model."""
    ranges, epsilon, unit = _ranges(model)
    threats = {"norm": "linf", "epsilon": epsilon, "input_range": ranges}
    threats |= {"evaluated": False, **unit, **(threat_model or {})}
    if not threats["evaluated"]:
        threats = {"note": NOT_EVALUATED, **threats}
    return {
        "format": CARD_FORMAT,
        "name": model.base.name,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": _versions(),
        "method": {
            "name": "J-SIGR",
            "reference": "arXiv 2207.13036",
            "note": "implemented from the abstract of arXiv 2207.13036 and the works it rests on",
        },
        "settings": {
            **model.config.get_config(),
            **model.training_state(),
            "warmup": model.warmup,
            "seed": model.seed,
        },
        "adversary": model.adversary and _described(model.adversary),
        "inputs": inputs,
        "input_range": ranges,
        "classes": int(model.classes),
        "head": {"layer": model.head.kind, "decision": head_kind(model, model.head, model.classes)},
        "endpoints": endpoints,
        "parameters": int(model.base.count_params()),
        "weights_sha256": fingerprint_weights(model.base),
        "threat_model": threats,
    }


def _ranges(model: Any) -> tuple[Any, float | None, dict[str, str]]:
    """Return range and radius of all inputs, or of every column by input."""
    try:
        return [float(end) for end in model.input_range], known_epsilon(model), {}
    except ValueError:  # columns have ranges of their own
        ends = {
            name: [np.asarray(end).tolist() for end in pair]
            for name, pair in model.probe_range.items()
        }
        unit = {"epsilon_unit": "the scale of each column, as passed to harden"}
        return ends, model.config.epsilon, unit


def check_threat_model(threat_model: Any) -> None:
    """Check that a statement is a dict of JSON values, or `None`."""
    if not isinstance(threat_model, (dict, type(None))):
        raise TypeError(
            f"`threat_model` must be a dict: got {type(threat_model).__name__}. Pass "
            "for example {'epsilon': 0.1, 'evaluated': True, 'note': '...'}."
        )
    try:
        json.dumps(threat_model, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"`threat_model` must hold JSON values: {error}. Turn arrays and NumPy "
            "numbers into Python lists and numbers."
        ) from error


def _described(adversary: Any) -> Any:
    """Serialize an adversary, or name the class of one that cannot be serialized."""
    try:
        return keras.saving.serialize_keras_object(adversary)
    except (TypeError, ValueError, NotImplementedError):
        return {"class_name": type(adversary).__qualname__}


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


def checksums(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file of an export but the card, by relative name."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): file_sha256(path)
        for path in files
        if path != folder / CARD_NAME
    }


def verify(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Check that the files of an export are those that its model card was written for.

    It finds damage and files that were exchanged, added or lost by accident. Who can
    write the files can write the card, too: compare the card with one that you keep.

    Args:
        path: The folder of the export.

    Returns:
        The card.

    Raises:
        ValueError: If there is no card, it has no checksums, or a file differs.

    Example:
        >>> import tempfile, keras, keras_jsigr as kj
        >>> net = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
        >>> robust = kj.harden(net, 0.1, warmup=0, verbose=0)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     kj.serving.export(robust, folder + "/1", verbose=0).name
        ...     kj.serving.verify(folder + "/1")["classes"]
        'model_card.json'
        2
    """
    folder = local_path(path)
    card = read_model_card(folder)
    stated = card.get("files")
    if not isinstance(stated, dict):
        raise ValueError(
            f"'{folder}' cannot be verified: got a card without checksums, as version 0.1 wrote "
            "them. Export the model again."
        )
    found = checksums(folder)
    differing = sorted(name for name in {*stated, *found} if stated.get(name) != found.get(name))
    if differing:
        lost = {name: "missing" for name in stated if name not in found}
        words = {name: "added" for name in found if name not in stated} | lost
        kinds = [f"{name} ({words.get(name, 'changed')})" for name in differing[:5]]
        raise ValueError(
            f"'{folder}' is not what was exported: {len(differing)} of {len({*stated, *found})} "
            f"files differ: {', '.join(kinds)}. Copy the export again from where it was made."
        )
    return card


def read_model_card(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read the model card of an export and check that it is one.

    Args:
        path: The folder of the export, or the card's own file.

    Returns:
        The card.

    Raises:
        ValueError: If there is no card, or it is damaged, incomplete or of a newer format.

    Example:
        >>> import tempfile
        >>> import keras
        >>> import keras_jsigr as kj
        >>> net = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
        >>> robust = kj.harden(net, epsilon=0.1, verbose=0)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = robust.export(folder, verbose=0)
        ...     card = kj.serving.read_model_card(path)
        >>> card["classes"], card["threat_model"]["evaluated"]
        (3, False)
    """
    path = local_path(path)
    path = path / CARD_NAME if path.is_dir() else path
    try:
        card: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(
            f"'{path}' is no model card: {error}. Give the folder that `export` wrote."
        ) from error
    found = card if isinstance(card, dict) else {}
    wrong = [
        name
        for name, kind in _SECTIONS.items()
        if name not in found or not isinstance(found[name], kind)
    ]
    if wrong:
        raise ValueError(
            f"'{path}' is no complete model card: {wrong} missing or of the wrong "
            "type. Export the model again."
        )
    if card["format"] > CARD_FORMAT:
        raise ValueError(
            f"'{path}' has format {card['format']}: expected at most {CARD_FORMAT}. "
            "Update keras_jsigr."
        )
    return card
