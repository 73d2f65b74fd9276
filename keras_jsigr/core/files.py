"""Files that are written atomically: JSON, checked archives of arrays, folders."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import re
import shutil
import sys
import types
import typing
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt


def local_path(path: str | os.PathLike[str]) -> Path:
    """Return a path on this machine; refuse URLs, where no write is atomic."""
    text = os.fspath(path)
    if re.match(r"[A-Za-z][\w+.-]+:/", text):
        raise ValueError(
            f"Cannot use the path '{text}': got the URL of a store, expected a path on "
            "this machine, where a file gets its name only once it is complete. Write "
            "to a local folder and copy it, for instance with `tf.io.gfile.copy`."
        )
    return Path(text).expanduser()


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Open a file under a temporary name; flush it to disk and rename it at the end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_whole(path: Path, data: bytes) -> None:
    """Write bytes to a file, atomically."""
    with atomic_write(path) as file:
        file.write(data)


def file_sha256(path: Path) -> str:
    """Hash a file, a megabyte at a time."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# JSON has no infinity: it is written as `{"$float": "inf"}` and read back as a float.
_FLOAT = "$float"
_LARGEST = sys.float_info.max
_NO_NUMBERS = {"inf": math.inf, "-inf": -math.inf, "nan": math.nan}


def json_text(document: Any) -> str:
    """Return strict JSON: an error instead of NaN and infinity."""
    return json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def to_json(value: Any, place: str = "value") -> Any:
    """Turn data classes and plain values into what strict JSON can hold."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {_FLOAT: str(value)}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: to_json(item, f"{place}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(item, f"{place}[{i}]") for i, item in enumerate(value)]
    raise TypeError(
        f"`{place}` does not fit into JSON: got {type(value).__name__}, expected "
        "numbers, strings, lists and dictionaries with string keys. Convert it first."
    )


def from_json(kind: Any, value: Any, place: str = "value") -> Any:
    """Turn what `to_json` returned back into an object of a type."""
    if isinstance(value, dict) and set(value) == {_FLOAT}:
        name = str(value[_FLOAT])
        if name not in _NO_NUMBERS:
            raise ValueError(
                f"`{place}` is damaged: got the float {name[:60]!r}, expected one of "
                f"{list(_NO_NUMBERS)}. Make the file again."
            )
        value = _NO_NUMBERS[name]
    if isinstance(value, int) and abs(value) > _LARGEST:
        raise ValueError(
            f"`{place}` is damaged: got an integer of {value.bit_length()} bits, "
            "expected a number that a float can hold. Make the file again."
        )
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        if isinstance(value, list):
            return [from_json(Any, item) for item in value]
        known = isinstance(value, dict)
        return {k: from_json(Any, v) for k, v in value.items()} if known else value
    if origin in (typing.Union, types.UnionType):
        return _first_fitting(arguments, value, place)
    if origin is typing.Literal and value in arguments:
        return value
    if dataclasses.is_dataclass(kind) and isinstance(value, dict):
        return _dataclass_from_json(kind, value, place)
    if origin is list and isinstance(value, list):
        return [from_json(arguments[0], v, f"{place}[{i}]") for i, v in enumerate(value)]
    if origin is tuple and isinstance(value, list) and len(value) == len(arguments):
        pairs = zip(arguments, value, strict=True)
        return tuple(from_json(a, v, f"{place}[{i}]") for i, (a, v) in enumerate(pairs))
    if origin is dict and isinstance(value, dict):
        return {k: from_json(arguments[1], v, f"{place}.{k}") for k, v in value.items()}
    number = not isinstance(value, bool) and isinstance(value, int | float)
    if kind is float and number:
        return float(value)
    if isinstance(kind, type) and type(value) is kind:
        return value
    name = getattr(kind, "__name__", str(kind))
    raise ValueError(
        f"`{place}` is damaged: got {str(value)[:60]!r}, expected {name}. Make the file again."
    )


def _first_fitting(kinds: tuple[Any, ...], value: Any, place: str) -> Any:
    if value is None and type(None) in kinds:
        return None
    rest = [kind for kind in kinds if kind is not type(None)]
    for kind in rest[:-1]:
        try:
            return from_json(kind, value, place)
        except ValueError:
            continue
    return from_json(rest[-1], value, place)


def _dataclass_from_json(kind: Any, value: dict[str, Any], place: str) -> Any:
    hints = typing.get_type_hints(kind)
    fields = {f.name: f for f in dataclasses.fields(kind) if f.init}
    missing = dataclasses.MISSING
    needed = {n for n, f in fields.items() if f.default is f.default_factory is missing}
    wrong = sorted((needed - set(value)) | (set(value) - set(fields)))
    if wrong:
        raise ValueError(
            f"`{place}` is damaged: {wrong} missing or unknown, expected "
            f"{sorted(fields)}. Make the file again."
        )
    parts = {k: from_json(hints[k], v, f"{place}.{k}") for k, v in value.items()}
    return kind(**parts)


Arrays = dict[str, npt.NDArray[Any]]
FORMAT_VERSION = 1


def write_cache_file(
    path: str | os.PathLike[str], header: Mapping[str, Any], arrays: Arrays
) -> None:
    """Write arrays and a JSON header to one `.npz` file, atomically."""
    path = Path(path)
    full = {**header, "format": FORMAT_VERSION}
    full["checksum"] = _checksum(full, arrays)
    text = np.frombuffer(json.dumps(full).encode(), np.uint8)
    with atomic_write(path) as file:
        np.savez(file, header=text, **arrays)  # type: ignore[arg-type]


def read_cache_file(path: str | os.PathLike[str]) -> tuple[dict[str, Any], Arrays]:
    """Read what `write_cache_file` wrote, and check it."""
    try:
        # Opened here, because `np.load` leaves damaged files open.
        with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        header = json.loads(arrays.pop("header").tobytes())
        version, checksum = header["format"], header.pop("checksum")
    except (FileNotFoundError, MemoryError):
        raise
    except Exception as error:  # whatever the bytes of another file lead to
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


_MARK = "saved_model.pb"


def check_target(path: Path, overwrite: bool) -> None:
    """Refuse a target that holds something, or something other than an export."""
    if path.exists() and not path.is_dir():
        raise ValueError(
            f"Cannot export to '{path}': got a file, expected a folder. Choose another path."
        )
    if not path.is_dir() or not any(path.iterdir()):
        return
    if not overwrite:
        raise ValueError(
            f"Cannot export to '{path}': the folder exists and is not empty. Choose "
            "the next version's folder, or replace this one with `overwrite=True`."
        )
    if not (path / _MARK).is_file():
        raise ValueError(
            f"Cannot replace '{path}': got a folder without '{_MARK}', expected an "
            "earlier export. Move its contents away, or choose another path."
        )


@contextmanager
def replaced_folder(path: Path) -> Iterator[Path]:
    """Write a folder under another name and give it its own when it is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tag = uuid.uuid4().hex[:12]
    # Beside the target, because a rename is atomic only within one file system.
    temporary = path.with_name(f".{path.name}.{tag}.tmp")
    old = path.with_name(f".{path.name}.{tag}.old")
    temporary.mkdir()
    try:
        yield temporary
        if path.exists():
            os.replace(path, old)
        try:
            os.replace(temporary, path)
        except OSError:
            if old.exists():
                os.replace(old, path)
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)
