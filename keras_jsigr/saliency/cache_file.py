"""One checked file of arrays with a header: written whole or not at all, no pickle."""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_jsigr.core.write_whole import whole_file

Arrays = dict[str, npt.NDArray[Any]]
FORMAT_VERSION = 1


def write_cache_file(
    path: str | os.PathLike[str], header: Mapping[str, Any], arrays: Arrays
) -> None:
    """Write arrays and a JSON header to one `.npz` file, atomically.

    The file is written under a temporary name in the same folder, flushed to disk and
    renamed, so that a reader meets the old file or the new one and nothing between.

    Args:
        path: Where to; parent folders are made.
        header: JSON values.
        arrays: Numeric arrays by name.

    Example:
        >>> import os, tempfile
        >>> import numpy as np
        >>> from keras_jsigr.saliency.cache_file import (
        ...     read_cache_file,
        ...     write_cache_file,
        ... )
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = os.path.join(folder, "cache.npz")
        ...     write_cache_file(path, {"grid": 5}, {"keys": np.arange(2)})
        ...     header, arrays = read_cache_file(path)
        >>> header["grid"], arrays["keys"].tolist()
        (5, [0, 1])
    """
    path = Path(path)
    full = {**header, "format": FORMAT_VERSION}
    full["checksum"] = _checksum(full, arrays)
    text = np.frombuffer(json.dumps(full).encode(), np.uint8)
    with whole_file(path) as file:
        np.savez(file, header=text, **arrays)  # type: ignore[arg-type]


def read_cache_file(path: str | os.PathLike[str]) -> tuple[dict[str, Any], Arrays]:
    """Read what `write_cache_file` wrote, and check it.

    Args:
        path: The file.

    Returns:
        The header and the arrays.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is damaged, foreign, or of a newer format.

    Example:
        See `write_cache_file`.
    """
    try:
        # Opened here, because `np.load` leaves damaged files open.
        with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        header = json.loads(arrays.pop("header").tobytes())
        version, checksum = header["format"], header.pop("checksum")
    except FileNotFoundError:
        raise
    except (
        OSError,
        EOFError,
        ValueError,
        KeyError,
        AttributeError,
        TypeError,
        NotImplementedError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise ValueError(
            f"Got a damaged or foreign file '{path}', expected a cache of perturbation "
            f"maps ({error}). Delete it, or build again with `overwrite=True`."
        ) from error
    if version != FORMAT_VERSION:
        raise ValueError(
            f"Got '{path}' in format {version}, expected {FORMAT_VERSION}. Update "
            "keras_jsigr, or build again with `overwrite=True`."
        )
    if checksum != _checksum(header, arrays):
        raise ValueError(
            f"Got '{path}' with a wrong checksum, expected {checksum}: the file is "
            "damaged. Delete it, or build again with `overwrite=True`."
        )
    del header["format"]
    return header, arrays


def _checksum(header: Mapping[str, Any], arrays: Arrays) -> str:
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for name in sorted(arrays):
        value = np.ascontiguousarray(arrays[name])
        digest.update(f"{name}{value.dtype.str}{value.shape}".encode())
        digest.update(value.tobytes())
    return digest.hexdigest()
