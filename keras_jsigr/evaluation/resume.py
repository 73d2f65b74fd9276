"""Results that are kept on disk, keyed by the model, the data and the settings."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from keras_jsigr.attacks.ensemble import LogitsEnsemble
from keras_jsigr.core.batching import probe_rows
from keras_jsigr.core.files import (
    from_json,
    json_text,
    local_path,
    read_cache_file,
    to_json,
    write_cache_file,
    write_whole,
)
from keras_jsigr.core.inputs import as_float
from keras_jsigr.core.logits import LogitsFn, as_logits, base_model
from keras_jsigr.saliency.fingerprint import fingerprint_array, fingerprint_model

# Results of another format are computed again. 1 keyed attacks by their byte code.
_FORMAT = 2
_NOT_OWN = (__name__.partition(".")[0], "builtins", "abc", "typing")


class CachedResult(NamedTuple):
    """A finished piece of work; one that is not `complete` is not kept."""

    arrays: dict[str, npt.NDArray[Any]]
    info: dict[str, Any]
    complete: bool = True


class ResultCache:
    """Keep each result in a file of its own, in a folder per `identity`."""

    def __init__(self, folder: str | os.PathLike[str] | None, identity: Mapping[str, Any]) -> None:
        self._folder = None
        if folder is None:
            return
        identity = {"format": _FORMAT, **identity}
        self._folder = local_path(folder) / _digest(identity)
        try:
            text = json_text(to_json(identity)).encode()
            write_whole(self._folder / "about.json", text)
        except OSError as error:
            what = f"`resume='{folder}'` cannot be written: {error}."
            raise ValueError(f"{what} Choose a folder that you may write to.") from error

    def get_or_compute(
        self, kind: str, settings: Mapping[str, Any], compute: Callable[[], CachedResult]
    ) -> CachedResult:
        """Return a result from its file, or compute it and write the file."""
        wanted = {"kind": kind, "settings": to_json(settings)}
        path = self._folder and self._folder / f"{kind}-{_digest(wanted)}.npz"
        if path is not None and (found := _read(path, wanted)) is not None:
            return found
        made = compute()
        # What is computed and what is read must not differ in any type.
        info, arrays = to_json(made.info), made.arrays
        made = made._replace(info=from_json(Any, info))
        if path is None or not made.complete:
            return made
        dtypes = {name: value.dtype.name for name, value in arrays.items()}
        # NumPy's file format has no bfloat16: its bits are stored as integers.
        bits = {
            name: value.view(np.uint16) if value.dtype.kind == "V" else value
            for name, value in arrays.items()
        }
        try:
            about = {"wanted": wanted, "info": info, "dtypes": dtypes}
            write_cache_file(path, about, bits)
        except OSError as error:
            what = f"'{path}' could not be written ({error}): it is not kept."
            warnings.warn(f"{what} Make room on the disk.", RuntimeWarning, stacklevel=2)
        return made


def _read(path: Path, wanted: dict[str, Any]) -> CachedResult | None:
    try:
        header, arrays = read_cache_file(path)
        if header["wanted"] == wanted:
            dtypes = header["dtypes"]
            arrays = {k: v.view(tf.as_dtype(dtypes[k]).as_numpy_dtype) for k, v in arrays.items()}
            return CachedResult(arrays, from_json(Any, header["info"]))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        pass
    what = f"'{path}' is damaged: its result is computed again."
    warnings.warn(what, RuntimeWarning, stacklevel=3)
    return None


def _digest(value: Mapping[str, Any]) -> str:
    return short_hash(json.dumps(to_json(value), sort_keys=True))


def short_hash(text: str) -> str:
    """Return 16 hexadecimal digits of the SHA-256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def array_digest(array: Any) -> str:
    """Return a short hash of an array, for the settings of a result."""
    array = np.ascontiguousarray(array)
    head = f"{array.dtype.str}{array.shape}".encode()
    return hashlib.sha256(head + array.tobytes()).hexdigest()[:16]


def data_identity(x: Any, y: Any) -> str:
    """Hash examples and labels."""
    parts = fingerprint_array(x) + fingerprint_array(y)
    return hashlib.sha256(parts.encode()).hexdigest()


def join_identities(parts: Sequence[str]) -> str:
    """Hash the identities of the blocks of data; that of a single block is its own."""
    return parts[0] if len(parts) == 1 else hashlib.sha256("".join(parts).encode()).hexdigest()


def class_fingerprint(kind: type) -> dict[str, str]:
    """Return a class's qualified name and, of a class of the user's, its source."""
    named = {"class": f"{kind.__module__}.{kind.__qualname__}"}
    sources = []
    for each in kind.__mro__:
        if each.__module__.partition(".")[0] not in _NOT_OWN:
            with suppress(OSError, TypeError):  # of a class typed into a session
                sources.append(inspect.getsource(each))
    return {**named, "source": short_hash("\n".join(sources))} if sources else named


def model_identity(model: Any, x: Any) -> str:
    """Hash what a model computes: architecture, weights, some answers and gradients."""
    if isinstance(model, LogitsEnsemble):
        parts = [type(model).__name__, str(model.weights), model.fuse]
        parts += [model_identity(part, x) for part in model.models]
    else:
        # The penalties of a hardened model change nothing that is evaluated.
        model = base_model(model)
        probe = probe_rows(x)
        logits_fn = as_logits(model, probe)
        if isinstance(model, keras.Model):
            parts = [fingerprint_model(model, logits_fn, probe)]
        else:
            # And at points between the least and the greatest value of these.
            few = np.asarray(as_float(probe))
            drawn = np.random.default_rng(0).uniform(few.min(), few.max(), few.shape)
            seen = (probe, tf.cast(drawn, as_float(x[:1]).dtype))
            parts = [np.asarray(logits_fn(points)).tobytes().hex() for points in seen]
        parts += _answers(logits_fn, probe)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _answers(logits_fn: LogitsFn, probe: tf.Tensor) -> list[str]:
    """Return the sizes of logits and gradients of the first examples as text."""
    probe = as_float(probe)
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(probe)
        logits = logits_fn(probe)
        energy = tf.reduce_sum(tf.square(tf.cast(logits, tf.float32)), axis=-1)
    try:
        gradient = tape.gradient(energy, probe)
    except (LookupError, tf.errors.OpError):  # of an operation that has none
        gradient = None
    if gradient is None or gradient.shape != probe.shape:
        return [_digits(energy), "no gradient"]
    size = tf.reduce_sum(tf.abs(gradient), range(1, probe.shape.rank))
    return [_digits(energy), _digits(size)]


def _digits(values: Any) -> str:
    # Few digits: the last ones differ between machines.
    return " ".join(f"{value:.2e}" for value in np.asarray(values, np.float64))
