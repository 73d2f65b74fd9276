"""Fingerprints of models and data, equal only if the evaluation would be."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any, NamedTuple

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from keras_jsigr.attacks.ensemble import LogitsEnsemble
from keras_jsigr.core.files import (
    from_json,
    read_cache_file,
    to_json,
    write_cache_file,
    write_whole,
)
from keras_jsigr.core.inputs import as_float
from keras_jsigr.core.logits import LogitsFn, as_logits, base_model
from keras_jsigr.evaluation.render.html import json_text
from keras_jsigr.saliency.fingerprint import fingerprint_array, fingerprint_model

_PROBES = 16


def model_identity(model: Any, x: Any) -> str:
    """Hash what a model computes: its weights and its architecture."""
    if isinstance(model, LogitsEnsemble):
        parts = [type(model).__name__, str(model.weights), model.fuse]
        parts += [model_identity(part, x) for part in model.models]
    else:
        # The penalties of a hardened model and their schedule play no part here.
        model = base_model(model)
        probe = tf.convert_to_tensor(x[:_PROBES])
        logits_fn = as_logits(model, probe)
        if isinstance(model, keras.Model):
            parts = [fingerprint_model(model, logits_fn, probe)]
        else:
            seen = (probe, _elsewhere(x))
            parts = [np.asarray(logits_fn(points)).tobytes().hex() for points in seen]
        parts += _behaviour(logits_fn, probe)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def data_identity(x: Any, y: Any) -> str:
    """Hash examples and labels."""
    parts = fingerprint_array(x) + fingerprint_array(y)
    return hashlib.sha256(parts.encode()).hexdigest()


def _elsewhere(x: Any) -> tf.Tensor:
    """Draw 16 points between the least and the greatest value of the first examples."""
    few = np.asarray(as_float(x[:_PROBES]))
    drawn = np.random.default_rng(0).uniform(few.min(), few.max(), few.shape)
    return tf.cast(drawn, as_float(x[:1]).dtype)


def _behaviour(logits_fn: LogitsFn, probe: tf.Tensor) -> list[str]:
    """Return the sizes of answers and gradients, one each per example."""
    probe = as_float(probe)
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(probe)
        logits = logits_fn(probe)
        energy = tf.reduce_sum(tf.square(tf.cast(logits, tf.float32)), axis=-1)
    try:
        gradient = tape.gradient(energy, probe)
    except LookupError:  # of an operation that has none
        gradient = None
    # Few numbers and few digits: the last ones differ between machines.
    values = [_digits(energy)]
    if gradient is None:
        return [*values, "no gradient"]
    return [
        *values,
        _digits(tf.reduce_sum(tf.abs(gradient), range(1, probe.shape.rank))),
    ]


def _digits(values: Any) -> str:
    return " ".join(f"{value:.2e}" for value in np.asarray(values, np.float64))


class CachedResult(NamedTuple):
    """A finished piece of work."""

    arrays: dict[str, npt.NDArray[Any]]
    info: dict[str, Any]
    whole: bool = True


class Store:
    """Keep each finished piece in a file of its own and hand it out again."""

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
        self, kind: str, settings: Mapping[str, Any], make: Callable[[], CachedResult]
    ) -> CachedResult:
        """Return a piece from its file, or make it and write the file."""
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
    """Return a short hash of an array, to put it into the settings of a piece."""
    array = np.ascontiguousarray(array)
    head = f"{array.dtype.str}{array.shape}".encode()
    return hashlib.sha256(head + array.tobytes()).hexdigest()[:16]


def _digest(value: Mapping[str, Any]) -> str:
    text = json.dumps(to_json(value), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _plain(piece: CachedResult) -> CachedResult:
    # What is made and what is read must not differ in any type.
    return piece._replace(info=from_json(Any, to_json(piece.info)))


def _read(path: Path, wanted: dict[str, Any]) -> CachedResult | None:
    try:
        header, arrays = read_cache_file(path)
        if header["wanted"] == wanted:
            dtypes = header["dtypes"]
            arrays = {k: v.view(_dtype(dtypes[k])) for k, v in arrays.items()}
            return CachedResult(arrays, from_json(Any, header["info"]))
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


def _write(path: Path, wanted: dict[str, Any], piece: CachedResult) -> None:
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


Functions = list[FunctionType]


_PACKAGE = __name__.partition(".")[0]


_PLAIN = (bool, int, float, complex, str, bytes, type(None), type(...))


_DATA = (*_PLAIN, tuple, list, frozenset, set, dict, np.ndarray)


# Where methods and decorated functions keep the function they are made of.
_HOLDERS = ("__func__", "fget", "func", "python_function", "__wrapped__")


def class_identity(kind: type) -> dict[str, str]:
    """Return what tells apart two classes: name and, if it is not ours, code."""
    code = own_code(kind)
    named = {"class": f"{kind.__module__}.{kind.__qualname__}"}
    return named if code is None else {**named, "code": code}


def own_code(kind: type) -> str | None:
    """Hash the code of a class and its bases, up to those of this package."""
    own = [each for each in kind.__mro__ if not _known(each.__module__)]
    if not own:
        return None
    found: Functions = []
    parts = [
        f"{name} {_of(value, found)}"
        for each in own
        for name, value in sorted(vars(each).items())
        if not name.startswith("__") or isinstance(value, FunctionType)
    ]
    # Each once, however they call each other; the list grows while it is gone through.
    parts += [_of_function(function, found) for function in found]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _known(module: str) -> bool:
    return module.partition(".")[0] in (_PACKAGE, "builtins", "abc", "typing")


def _of(value: Any, found: Functions) -> str:
    if isinstance(value, CodeType):
        return _of((value.co_code.hex(), value.co_names, value.co_consts), found)
    if isinstance(value, FunctionType):
        if value not in found:
            found.append(value)
        return f"function {found.index(value)}"
    if isinstance(value, frozenset | set):
        # Their order differs between processes.
        return f"set {sorted(_of(item, found) for item in value)}"
    if isinstance(value, tuple | list):
        return f"{type(value).__name__} {[_of(item, found) for item in value]}"
    if isinstance(value, dict):
        return f"dict {_of(tuple(value.items()), found)}"
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        return array_digest(value)
    if isinstance(value, _PLAIN):
        return repr(value)
    for holder in _HOLDERS:
        inner = getattr(value, holder, None)
        if isinstance(inner, FunctionType):
            return f"{type(value).__name__} {_of(inner, found)}"
    return type(value).__name__


def _of_function(function: FunctionType, found: Functions) -> str:
    code = function.__code__
    used = {
        name: function.__globals__[name]
        for name in _names(code)
        if name in function.__globals__
    }
    # What belongs to other modules has a version of its own.
    near = [
        (name, value)
        for name, value in sorted(used.items())
        if isinstance(value, _DATA)
        or getattr(value, "__module__", None) == function.__module__
    ]
    closure = [cell.cell_contents for cell in function.__closure__ or () if _full(cell)]
    defaults = (function.__defaults__, sorted((function.__kwdefaults__ or {}).items()))
    return _of((code, defaults, closure, near), found)


def _names(code: CodeType) -> set[str]:
    inner = [part for part in code.co_consts if isinstance(part, CodeType)]
    return set(code.co_names).union(*map(_names, inner))


def _full(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True
