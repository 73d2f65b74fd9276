"""A folder of finished pieces, so that an interrupted evaluation can go on."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from keras_jsigr.core.write_whole import write_whole
from keras_jsigr.evaluation.json_codec import from_json, to_json
from keras_jsigr.evaluation.saving import json_text
from keras_jsigr.saliency.cache_file import read_cache_file, write_cache_file


class Piece(NamedTuple):
    """A finished piece of work.

    Attributes:
        arrays: By name.
        info: JSON values by name.
        whole: Whether nothing failed; what did is tried again the next time.
    """

    arrays: dict[str, npt.NDArray[Any]]
    info: dict[str, Any]
    whole: bool = True


class Store:
    """Keep each finished piece in a file of its own and hand it out again.

    `folder/<identity>/<kind>-<settings>.npz`: the identity (model, data, package
    version) and the settings of a piece stand in its path as hashes and in the file in
    full. So one folder serves any number of models and settings; nothing is ever mixed
    up or lost, and what is asked for again is found. Files are written under a
    temporary name and renamed; a damaged one is noticed by its checksum.

    Args:
        folder: Where to; `None` keeps nothing.
        identity: JSON values that tell what is evaluated.

    Raises:
        ValueError: If the folder cannot be written.

    Example:
        >>> import tempfile
        >>> from keras_jsigr.evaluation.store import Piece, Store
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for work in (lambda: Piece({}, {"n": 1}), lambda: None):
        ...         store = Store(folder, {"model": "a"})
        ...         print(store.piece("demo", {"steps": 3}, work).info)
        {'n': 1}
        {'n': 1}
    """

    def __init__(
        self, folder: str | os.PathLike[str] | None, identity: Mapping[str, Any]
    ) -> None:
        self._folder = None
        if folder is None:
            return
        self._folder = Path(folder).expanduser() / _digest(identity)
        try:
            text = json_text(to_json(identity)).encode()
            write_whole(self._folder / "about.json", text)
        except OSError as error:
            raise ValueError(
                f"`resume='{folder}'` cannot be written: {error}. Choose a folder that "
                "you may write to."
            ) from error

    def piece(
        self, kind: str, settings: Mapping[str, Any], make: Callable[[], Piece]
    ) -> Piece:
        """Return a piece from its file, or make it and write the file.

        Args:
            kind: What it is, a few letters for the name of the file.
            settings: JSON values; another value is another piece.
            make: Does the work; not called if the piece is there.

        Returns:
            The piece.
        """
        if self._folder is None:
            return _plain(make())
        wanted = {"kind": kind, "settings": to_json(settings)}
        path = self._folder / f"{kind}-{_digest(wanted)}.npz"
        found = _read(path, wanted)
        if found is not None:
            return found
        made = _plain(make())
        if not made.whole:
            return made
        try:
            _write(path, wanted, made)
        except OSError as error:
            warnings.warn(
                f"'{path}' could not be written ({error}): this piece will have to be "
                "computed again. Make room on the disk.",
                RuntimeWarning,
                stacklevel=2,
            )
        return made


def array_digest(array: Any) -> str:
    """Return a short hash of an array, to put it into the settings of a piece.

    Args:
        array: Of numbers or bools.

    Returns:
        16 hexadecimal digits.

    Example:
        >>> import numpy as np
        >>> from keras_jsigr.evaluation.store import array_digest
        >>> array_digest(np.arange(3)) == array_digest(np.arange(4))
        False
    """
    array = np.ascontiguousarray(array)
    head = f"{array.dtype.str}{array.shape}".encode()
    return hashlib.sha256(head + array.tobytes()).hexdigest()[:16]


def _digest(value: Mapping[str, Any]) -> str:
    text = json.dumps(to_json(value), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _plain(piece: Piece) -> Piece:
    # What is made and what is read must not differ in any type.
    return piece._replace(info=from_json(Any, to_json(piece.info)))


def _read(path: Path, wanted: dict[str, Any]) -> Piece | None:
    try:
        header, arrays = read_cache_file(path)
        if header["wanted"] == wanted:
            dtypes = header["dtypes"]
            arrays = {k: v.view(_dtype(dtypes[k])) for k, v in arrays.items()}
            return Piece(arrays, from_json(Any, header["info"]))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        pass
    warnings.warn(
        f"'{path}' is damaged: its piece of the evaluation is computed again.",
        RuntimeWarning,
        stacklevel=3,
    )
    return None


def _write(path: Path, wanted: dict[str, Any], piece: Piece) -> None:
    header = {
        "wanted": wanted,
        "info": to_json(piece.info),
        "dtypes": {name: value.dtype.name for name, value in piece.arrays.items()},
    }
    # The file format of NumPy has no bfloat16: its bits go as integers.
    arrays = {
        name: value.view(np.uint16) if value.dtype.kind == "V" else value
        for name, value in piece.arrays.items()
    }
    write_cache_file(path, header, arrays)


def _dtype(name: str) -> Any:
    return tf.as_dtype(name).as_numpy_dtype
