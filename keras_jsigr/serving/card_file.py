"""The model card as a file: written by `export`, read by whoever gets the model."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from keras_jsigr.serving.model_card import CARD_FORMAT

CARD_NAME = "model_card.json"
_SECTIONS: dict[str, type | tuple[type, ...]] = {
    "format": int,
    "name": str,
    "created": str,
    "versions": dict,
    "method": dict,
    "settings": dict,
    "adversary": (dict, type(None)),
    "inputs": list,
    "input_range": list,
    "classes": int,
    "head": dict,
    "endpoints": dict,
    "parameters": int,
    "weights_sha256": str,
    "threat_model": dict,
}


def write_model_card(card: dict[str, Any], folder: Path) -> None:
    """Write a card into an export.

    Args:
        card: What `model_card` made.
        folder: The folder of the export.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from keras_jsigr.serving.card_file import write_model_card
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_model_card({}, Path(folder))
    """
    text = json.dumps(card, indent=2, ensure_ascii=False) + "\n"
    (folder / CARD_NAME).write_text(text, encoding="utf-8")


def read_model_card(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read the model card of an export and check that it is one.

    Args:
        path: The folder of the export, or the card's own file.

    Returns:
        The card.

    Raises:
        ValueError: If there is no card, or it is damaged, incomplete or of a newer
            format.

    Example:
        >>> import tempfile
        >>> import keras
        >>> from keras_jsigr.model import JSIGRModel
        >>> from keras_jsigr.serving import export, read_model_card
        >>> net = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     card = read_model_card(export(JSIGRModel(net), folder, verbose=0))
        >>> card["classes"], card["threat_model"]["evaluated"]
        (3, False)
    """
    path = Path(path).expanduser()
    path = path / CARD_NAME if path.is_dir() else path
    try:
        card: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"'{path}' is no model card: {error}. Give the folder that `export` wrote."
        ) from error
    wrong = [
        name
        for name, kind in _SECTIONS.items()
        if not isinstance(card, dict)
        or name not in card
        or not isinstance(card[name], kind)
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
