"""Cached perturbation maps: a few bytes per example, found again by its content."""

from __future__ import annotations

import math
import os
import sys
import time
import warnings
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from keras_jsigr.core import batching
from keras_jsigr.core.arguments import BaselineName, ChangeName, count, is_verbose, tell
from keras_jsigr.core.batching import as_fit_sees, as_labels, check_lengths, probe_of
from keras_jsigr.core.files import local_path, read_cache_file, write_cache_file
from keras_jsigr.core.logits import as_logits
from keras_jsigr.core.scores import HeadKind
from keras_jsigr.core.streams import Block, Blocks, is_stream
from keras_jsigr.saliency.base import decision_of
from keras_jsigr.saliency.fingerprint import fingerprint_array, fingerprint_model
from keras_jsigr.saliency.masks import Layout, MaskBank, interpolate, make_mask_bank
from keras_jsigr.saliency.perturbation import perturbation_explainer

Codes = npt.NDArray[np.uint8]
Keys = npt.NDArray[np.int64]
PathLike = str | os.PathLike[str]
Identity = Mapping[str, Any]
# Of the examples of a build, by name.
Columns = dict[str, npt.NDArray[Any]]
# How the identity of data begins; before, it was a hash of their bytes.
_BY_KEYS = "keys:"
_SECONDS_BETWEEN_SAVES = 10.0
_FEW = 16
# Odd constants of SplitMix64 and MurmurHash3; any change makes old caches worthless.
_SPREAD = np.array(0x9E3779B97F4A7C15, np.uint64).view(np.int64)
_MIX = np.array(0xBF58476D1CE4E5B9, np.uint64).view(np.int64)
_FINAL = np.array(0x94D049BB133111EB, np.uint64).view(np.int64)


def build_codes(
    explain: batching.BatchedExplainer,
    blocks: Iterable[Block],
    partial: Path | None,
    identity: Identity,
    verbose: int = 1,
    total: int | None = None,
) -> Columns:
    """Compute codes and keys of all examples in order, resuming from a partial file."""
    found, parts = _resume(partial, identity), []
    done, kept, saved = 0, len(found.get("codes", ())), time.monotonic()
    bar = keras.utils.Progbar(total, verbose=int(is_verbose(verbose)), unit_name="example")
    try:
        for block in blocks:
            part = keys_of(block)
            old = {name: column[done : done + len(block.x)] for name, column in found.items()}
            if {*old} != {*part, "codes"} or not all(
                np.array_equal(old[name], keys[: len(old[name])]) for name, keys in part.items()
            ):
                found, old = {}, {}  # of other data
            if kept and not done and old:
                tell(f"Going on with {kept} examples from '{partial}'.", verbose)
            codes = [old["codes"]] if old else []
            if (known := sum(map(len, codes))) < len(block.x):
                y = None if block.y is None else block.y[known:]
                codes.append(quantize(explain(block.x[known:], y)))
            parts.append({**part, "codes": np.concatenate(codes)})
            done += len(block.x)
            bar.update(done)
            if done > kept and time.monotonic() - saved > _SECONDS_BETWEEN_SAVES:
                parts, saved = _save(partial, identity, parts), time.monotonic()
    except BaseException:
        if done > kept:
            _save(partial, identity, parts)
        raise
    if total is None:
        bar.update(done, finalize=True)
    return _joined(parts)


def keys_of(block: Block) -> Columns:
    """Return two keys of each example, and one of its labels, by their contents."""
    x = np.asarray(as_fit_sees(block.x))
    mirrored = x.reshape(len(x), -1)[:, ::-1]
    keys = {"keys": hashed_examples(x), "twins": hashed_examples(mirrored)}
    return keys if block.y is None else {**keys, "labels": hashed_examples(as_labels(block.y))}


def _joined(parts: Sequence[Columns]) -> Columns:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _data_identity(columns: Columns) -> dict[str, str]:
    """Identify data by the keys of their examples and labels, in any order."""
    keys, labels = columns["keys"], columns.get("labels")
    order = np.argsort(keys) if labels is None else np.lexsort((labels, keys))
    about = {"data": keys, "labels": labels}
    return {
        name: "none" if values is None else _BY_KEYS + fingerprint_array(values[order])
        for name, values in about.items()
    }


def quantize(coefficients: npt.ArrayLike) -> Codes:
    """Round coefficients in [0, 1] to 256 steps, `round(255 c)`."""
    values = np.asarray(coefficients, np.float32)
    if not np.isfinite(values).all():
        raise ValueError(
            "Got coefficients that are NaN or infinite, expected numbers in [0, 1]. "
            "Check the teacher's outputs on this data."
        )
    codes: Codes = np.rint(np.clip(values, 0.0, 1.0) * 255.0).astype(np.uint8)
    return codes


def _save(partial: Path | None, identity: Identity, parts: list[Columns]) -> list[Columns]:
    joined = _joined(parts)
    if partial is not None:
        write_cache_file(partial, identity, joined)
    return [joined]


def _resume(partial: Path | None, identity: Identity) -> Columns:
    """Return the rows of an interrupted build by the same teacher and settings."""
    try:
        header, arrays = read_cache_file(partial) if partial else ({}, {})
    except (FileNotFoundError, ValueError):
        return {}
    return arrays if header == identity else {}


def _check_identity(found: Identity, wanted: Identity, path: Path) -> None:
    """Refuse a cache that was built from something else, naming what differs."""
    pairs = [(name, found.get(name), value) for name, value in wanted.items()]
    differing = [f"{n} (got {a!r}, expected {b!r})" for n, a, b in pairs if a != b]
    if differing:
        raise ValueError(
            f"'{path}' holds other maps; it differs in {'; '.join(differing)}. "
            "Choose another path, or build again with `overwrite=True`."
        )


def content_keys(x: Any) -> tf.Tensor:
    """Hash every example to 64 bits, so that it can be found again by its content."""
    x = tf.convert_to_tensor(x)
    if x.shape.rank is None or None in x.shape[1:] or x.shape.rank < 1:
        raise ValueError(
            f"Got data of shape {x.shape}, expected (B, ...) with fixed lengths after "
            "the batch axis. Resize or pad the data before looking it up."
        )
    length = int(np.prod(x.shape[1:], dtype=np.int64))
    rows = tf.reshape(tf.cast(x, tf.float32), (-1, length))
    bits = tf.bitcast(rows, tf.int32)
    # On the bits: `x + 0.0` would be optimized away in graphs.
    bits = tf.where(bits == np.iinfo(np.int32).min, tf.zeros_like(bits), bits)
    spread = _shift_mix(tf.cast(bits, tf.int64) * _SPREAD, 32)
    mixed = _shift_mix(spread * _position_constants(length), 29)
    total = tf.reduce_sum(mixed, axis=-1)
    return _shift_mix(_shift_mix(_shift_mix(total, 30) * _MIX, 27) * _FINAL, 31)


def _shift_mix(h: tf.Tensor, bits: int) -> tf.Tensor:
    """Return `h ^ (h >>> bits)`; TensorFlow's signed shift would copy the sign."""
    unsigned = tf.bitcast(h, tf.uint64)
    shifted = tf.bitwise.right_shift(unsigned, tf.constant(bits, tf.uint64))
    return tf.bitcast(tf.bitwise.bitwise_xor(unsigned, shifted), tf.int64)


@lru_cache(maxsize=8)
def _position_constants(length: int) -> npt.NDArray[np.int64]:
    """Return the first `length` numbers of the SplitMix64 stream from 0, made odd."""
    state = np.arange(1, length + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    z = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = (z ^ (z >> np.uint64(31))) | np.uint64(1)
    return z.view(np.int64)


_BATCH = 1024
_HASHED = batching.BatchedExplainer(lambda x, y: content_keys(x), _BATCH)


def hashed_examples(x: Any) -> Keys:
    """Hash every example of an array, batch by batch, see `content_keys`."""
    return np.asarray(_HASHED(x))


def sorted_rows(keys: Keys, x: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Return the order in which rows are stored: by key, repeated examples once."""
    order = np.argsort(keys, kind="stable").astype(np.int64)
    repeats = np.flatnonzero(np.diff(keys[order]) == 0) + 1
    for start in range(0, len(repeats), _BATCH):
        at = repeats[start : start + _BATCH]
        one, other = x[order[at - 1]], x[order[at]]
        same = np.equal(one, other) | (np.not_equal(one, one) & (other != other))
        wrong = np.flatnonzero(~same.reshape(len(at), -1).all(axis=1))
        if len(wrong):
            pair = sorted(order[at[wrong[0]] + [-1, 0]].tolist())
            raise ValueError(
                f"Got the same 64-bit content key for the different examples {pair}, "
                "expected one key per content. Remove one of them, or scale the data "
                "(a factor of 0.999 changes all keys)."
            )
    return np.delete(order, repeats)


class PerturbationCache:
    """Perturbation coefficients of a data set, found again by content.

    Per example K bytes (`round(255 S_k / max_k S_k)`) and a 64-bit key of its content:
    the training step hashes the examples of its batch, so shuffling, batching,
    `tf.data` and sample weights need no change. Made by `build` or `load`.

    Args:
        keys: Int64 `(N,)`, strictly rising.
        codes: Uint8 `(N, K)`.
        bank: The masks the coefficients belong to.
        identity: Settings and fingerprints it was built with.

    Example:
        >>> from keras_jsigr import PerturbationCache
        >>> x = [[1.0, 2.0], [3.0, 1.0]]
        >>> cache = PerturbationCache.build(lambda x: x, x, baseline="zero", verbose=0)
        >>> cache.lookup([[3.0, 1.0], [9.0, 9.0]])[1].tolist()
        [True, False]
    """

    def __init__(self, keys: Keys, codes: Codes, bank: MaskBank, identity: Identity) -> None:
        self.keys, self.codes, self.bank = keys, codes, bank
        self.identity = dict(identity)

    def __repr__(self) -> str:
        maps, masks = f"{len(self.keys)} maps {self.bank.map_shape}", self.bank.size
        return f"PerturbationCache({maps} of {masks} masks)"

    @classmethod
    def build(
        cls,
        teacher: Any,
        x: Any,
        y: Any = None,
        *,
        path: PathLike | None = None,
        grid: int | Sequence[int] = 5,
        baseline: BaselineName = "blur",
        score: ChangeName = "squared_logits",
        kind: HeadKind | None = None,
        layout: Layout | None = None,
        batch_size: int = 128,
        verbose: int = 1,
        overwrite: bool = False,
    ) -> PerturbationCache:
        """Compute the coefficients of every example, or load them if they exist.

        Args:
            teacher: A Keras classifier, a hardened model or a callable.
            x: Data `(N, *S)` as the training step will get it: not augmented. Or a batched
                `tf.data.Dataset` or `keras.utils.PyDataset` of `(x, y)` or `x`, which is read
                once: memory holds a few batches, and 50 to 100 bytes per example.
            y: Labels `(N,)` or `(N, C)`; `None` takes the teacher's decisions, and with a
                dataset its labels, if it has some.
            path: A `.npz` file to keep the cache in. A build that was killed goes on
                from `<path>.partial`; a finished file of the same teacher, data and
                settings is loaded instead, in whatever order the data come.
            grid: As `Perturbation`.
            baseline: As `Perturbation`.
            score: As `Perturbation`.
            kind: As `Perturbation`.
            layout: As `Perturbation`.
            batch_size: Examples per compiled call.
            verbose: 1 shows a progress bar, 0 is silent.
            overwrite: Whether to build again in place of an existing file.

        Returns:
            The cache. Equal examples share a row, that of the first.

        Raises:
            ValueError: If `path` holds the cache of another teacher, of other data or
                settings, if it is damaged, or if an argument is out of range.
            TypeError: If `x` is not one array of numbers.
        """
        size, total = count("batch_size", batch_size), None
        if is_stream(x):
            # A few examples at least, to know a callable teacher by its answers.
            blocks = Blocks(x, y, model=teacher, size=size * math.ceil(_FEW / size))
            first = np.asarray(as_fit_sees(blocks.head.x))
        else:
            first = x = np.asarray(as_fit_sees(x))
            y = None if y is None else np.asarray(y)
            total = check_lengths(x, y)
            blocks = Blocks(x, y, size=size)
        probe = probe_of(first)
        bank = make_mask_bank(first.shape[1:], grid, layout=layout)
        kind = decision_of(teacher, probe, kind).kind
        settings: dict[str, Any] = {"baseline": baseline, "score": score, "kind": kind}
        explain = perturbation_explainer(
            teacher, probe, bank, batch_size=size, maps=False, **settings
        )
        identity = {
            "bank": bank.get_config(),
            **settings,
            "teacher": fingerprint_model(teacher, as_logits(teacher, probe), first),
        }
        path = None if path is None else local_path(path)
        if path is not None and path.exists() and not overwrite:
            cache = cls.load(path)
            _check_identity(cache.identity, identity, path)
            if is_stream(x) or str(cache.identity.get("data")).startswith(_BY_KEYS):
                data = _data_identity(_joined([keys_of(block) for block in blocks]))
            else:
                data = {"data": fingerprint_array(x), "labels": fingerprint_array(y)}
            _check_identity(cache.identity, data, path)
            tell(f"Loaded the maps of {cache.size} examples from '{path}'.", verbose)
            return cache
        partial = None if path is None else Path(f"{path}.partial")
        built = build_codes(explain, blocks, partial, identity, verbose, total)
        codes, keys = built["codes"], built["keys"]
        if (codes == codes[:, :1]).all():
            warnings.warn(
                f"All {len(codes)} maps are {'constant' if codes.any() else 'zero'}: "
                "they select no part of the inputs. Use another `baseline` or `grid`; "
                "are the inputs constant, or of a single feature?",
                stacklevel=2,
            )
        # The second key stands for the content, which a dataset shows only once.
        rows = sorted_rows(keys, built["twins"][:, np.newaxis])
        cache = cls(keys[rows], codes[rows], bank, {**identity, **_data_identity(built)})
        if path is not None and partial is not None:
            cache.save(path)
            partial.unlink(missing_ok=True)
        return cache

    def save(self, path: PathLike) -> None:
        """Write the cache to the `.npz` file `path`, atomically and without pickle."""
        library = sys.modules["keras_jsigr"].__version__
        header = {"identity": self.identity, "keras_jsigr": library}
        arrays: Any = {"keys": self.keys, "codes": self.codes}
        write_cache_file(local_path(path), header, arrays)

    @classmethod
    def load(cls, path: PathLike) -> PerturbationCache:
        """Read a cache from the file `path`.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If the file is damaged or no cache.
        """
        header, arrays = read_cache_file(local_path(path))
        try:
            identity = header["identity"]
            bank = MaskBank.from_config(identity["bank"])
            return cls(arrays["keys"], arrays["codes"], bank, identity)
        except KeyError as error:
            raise ValueError(
                f"Got '{path}' without {error}, expected a finished cache. "
                "Finish its build with `PerturbationCache.build(..., path=...)`."
            ) from error

    @property
    def size(self) -> int:
        """The number of different examples, N."""
        return len(self.keys)

    @property
    def coefficients(self) -> npt.NDArray[np.float32]:
        """The coefficients, float32 `(N, K)` in [0, 1], off by at most 1/510."""
        return self.codes.astype(np.float32) / np.float32(255.0)

    def lookup(self, x: Any) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        """Find the coefficients of examples `(B, *S)`, in any order, by their content.

        Returns:
            Float32 `(B, K)`, and bool `(B,)`, whether the example is in the cache; the
            coefficients of an example that is not are zero.
        """
        keys = hashed_examples(np.asarray(as_fit_sees(x)))
        rows = np.minimum(np.searchsorted(self.keys, keys), self.size - 1)
        found = self.keys[rows] == keys
        codes = (self.codes[rows] * found[:, np.newaxis]).astype(np.float32)
        return codes / np.float32(255.0), found

    def maps(self, x: Any) -> npt.NDArray[np.float32]:
        """Rebuild the maps of examples `(B, *S)`, `sum_k c_k hat_k`.

        Returns:
            Float32 `(B, *map_shape)` in [0, 1]; zero for examples not in the cache.
        """
        return np.asarray(interpolate(self.bank, self.lookup(x)[0]))


@keras.saving.register_keras_serializable(package="keras_jsigr")
class MapTable(keras.layers.Layer):
    """Look up the saliency maps of the examples in a batch, by content."""

    def __init__(self, size: int, bank: MaskBank | Mapping[str, Any], **kwargs: Any) -> None:
        kwargs = {**kwargs, "dtype": "float32", "trainable": False, "autocast": False}
        super().__init__(**kwargs)
        if not isinstance(size, int) or size < 1:
            raise ValueError(
                f"Got size {size!r}, expected the positive number of rows. "
                "Make the table by `MapTable.from_cache`."
            )
        self.size = size
        self.bank = bank if isinstance(bank, MaskBank) else MaskBank.from_config(bank)

    @classmethod
    def from_cache(cls, cache: PerturbationCache, **kwargs: Any) -> MapTable:
        """Make a table that holds a cache."""
        table = cls(cache.size, cache.bank, **kwargs)
        table.build((None, *cache.bank.input_shape))
        table.assign(cache)
        return table

    def build(self, input_shape: Any = None) -> None:
        """Make the weights; the bank knows the shape."""
        del input_shape
        fixed = {"initializer": "zeros", "trainable": False, "autocast": False}
        shape = (self.size, self.bank.size)
        # Workers broadcast new variables, TensorFlow no uint8; float16 holds 0..255 exactly.
        many = isinstance(tf.distribute.get_strategy(), tf.distribute.MultiWorkerMirroredStrategy)
        dtype = "float16" if many else "uint8"
        self.keys = self.add_weight((self.size,), dtype="int64", name="keys", **fixed)
        self.codes = self.add_weight(shape, dtype=dtype, name="codes", **fixed)
        self.built = True

    def assign(self, cache: PerturbationCache) -> None:
        """Replace the contents in place, without a retrace of who reads them."""
        if cache.size != self.size or cache.bank != self.bank:
            raise ValueError(
                f"Got a cache of {cache.size} rows with {cache.bank}, expected "
                f"{self.size} rows with {self.bank}. Build it from the same data with "
                "the same settings, or make a new table."
            )
        self.keys.assign(cache.keys)
        self.codes.assign(cache.codes)

    def call(self, x: Any) -> tuple[tf.Tensor, tf.Tensor]:
        """Look up the maps of a batch; see the class."""
        wanted, keys = content_keys(x), tf.convert_to_tensor(self.keys)
        rows = tf.minimum(tf.searchsorted(keys, wanted), self.size - 1)
        found = tf.equal(tf.gather(keys, rows), wanted)
        codes = tf.cast(tf.gather(tf.convert_to_tensor(self.codes), rows), tf.float32)
        codes = tf.where(found[:, tf.newaxis], codes, tf.zeros_like(codes))
        return interpolate(self.bank, codes / 255.0), found

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make the same table, without its contents."""
        config = super().get_config()
        return {**config, "size": self.size, "bank": self.bank.get_config()}


class RefreshedCodes:
    """Compute the codes of a table's examples anew, by one compiled program."""

    def __init__(self, model: Any, table: MapTable, x: Any, y: Any = None, **settings: Any) -> None:
        self._x = np.asarray(as_fit_sees(x))
        self._y = None if y is None else np.asarray(y)
        check_lengths(self._x, self._y)
        keys = hashed_examples(self._x)
        self._rows = sorted_rows(keys, self._x)
        if not np.array_equal(keys[self._rows], table.keys):
            raise ValueError(
                "RefreshMaps got other examples than the cache holds: training would "
                "find no maps. Pass the arrays that the cache was built from and `fit` "
                "receives, scaled as they are there."
            )
        probe = probe_of(self._x)
        self._explain = perturbation_explainer(model, probe, table.bank, maps=False, **settings)

    def __call__(self, verbose: int = 0) -> Codes:
        """Return the codes by the model's current weights, in the table's order."""
        blocks = Blocks(self._x, self._y, size=self._explain.batch_size)
        codes = build_codes(self._explain, blocks, None, {}, verbose, len(self._x))["codes"]
        return codes[self._rows]
