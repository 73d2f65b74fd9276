"""The maps of a frozen teacher, kept as a few bytes per example."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_jsigr.core.choices import BaselineName, ChangeName
from keras_jsigr.core.logits import as_logits
from keras_jsigr.core.scores import HeadKind
from keras_jsigr.saliency.batched import (
    as_fit_sees,
    check_lengths,
    probe_of,
)
from keras_jsigr.saliency.build_codes import build_codes
from keras_jsigr.saliency.cache_file import read_cache_file, write_cache_file
from keras_jsigr.saliency.decision import decision_of
from keras_jsigr.saliency.fingerprint import (
    check_identity,
    fingerprint_array,
    fingerprint_model,
)
from keras_jsigr.saliency.hashed_examples import hashed_examples
from keras_jsigr.saliency.interpolate import interpolate
from keras_jsigr.saliency.layout import Layout
from keras_jsigr.saliency.mask_bank import MaskBank, make_mask_bank
from keras_jsigr.saliency.perturbation_map import perturbation_explainer
from keras_jsigr.saliency.sorted_rows import sorted_rows

Path_ = str | os.PathLike[str]


class PerturbationCache:
    """Perturbation coefficients of a data set, found again by content.

    Per example K bytes (`round(255 S_k / max_k S_k)`) and a 64-bit key of its content:
    the training step hashes the examples it meets, so shuffling, batching, `tf.data`
    and sample weights stay as they are. Make one by `build` or `load`; `MapTable` puts
    it inside a model.

    Args:
        keys: Int64 `(N,)`, strictly rising.
        codes: Uint8 `(N, K)`.
        bank: The masks the coefficients belong to.
        identity: Settings and fingerprints it was built with.

    Example:
        >>> import numpy as np
        >>> from keras_jsigr.saliency.cache import PerturbationCache
        >>> x = np.array([[1.0, 2.0], [3.0, 1.0]])
        >>> cache = PerturbationCache.build(lambda x: x, x, baseline="zero", verbose=0)
        >>> cache.lookup([[3.0, 1.0], [9.0, 9.0]])[1].tolist()
        [True, False]
    """

    def __init__(
        self,
        keys: npt.NDArray[np.int64],
        codes: npt.NDArray[np.uint8],
        bank: MaskBank,
        identity: Mapping[str, Any],
    ) -> None:
        self.keys = keys
        self.codes = codes
        self.bank = bank
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
        path: Path_ | None = None,
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
            x: Data `(N, *S)`, as it will be met in training: not augmented.
            y: Labels `(N,)` or `(N, C)`; `None` takes the teacher's decisions.
            path: A `.npz` file to keep the cache in. A build that was killed goes on
                from `<path>.partial`; a finished file of the same teacher, data and
                settings is loaded instead.
            grid: G for G x G masks, or `(rows, columns)`.
            baseline: What occludes: `"blur"`, `"mean"` or `"zero"`.
            score: `"squared_logits"`, `"probability_drop"` or `"sarfa"`.
            kind: `"softmax"` (exclusive classes) or `"sigmoid"` (independent ones);
                `None` asks the head and the loss of a Keras model, and takes a callable
                for the first.
            layout: What the axes mean where the rank would mislead.
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
        x, y = np.asarray(as_fit_sees(x)), None if y is None else np.asarray(y)
        check_lengths(x, y)
        probe = probe_of(x)
        bank = make_mask_bank(x.shape[1:], grid, layout=layout)
        kind = decision_of(teacher, probe, kind).kind
        explain = perturbation_explainer(
            teacher,
            probe,
            bank,
            baseline=baseline,
            score=score,
            kind=kind,
            batch_size=batch_size,
            maps=False,
        )
        identity = {
            "bank": bank.get_config(),
            "baseline": baseline,
            "score": score,
            "kind": kind,
            "teacher": fingerprint_model(teacher, as_logits(teacher, probe), x),
            "data": fingerprint_array(x),
            "labels": fingerprint_array(y),
        }
        path = None if path is None else Path(path).expanduser()
        if path is not None and path.exists() and not overwrite:
            cache = cls.load(path)
            check_identity(cache.identity, identity, path)
            if verbose:
                print(f"Loaded the maps of {cache.size} examples from '{path}'.")
            return cache
        partial = None if path is None else Path(f"{path}.partial")
        codes = build_codes(
            explain, x, y, partial=partial, identity=identity, verbose=verbose
        )
        keys = hashed_examples(x)
        rows = sorted_rows(keys, x)
        cache = cls(keys[rows], codes[rows], bank, identity)
        if path is not None and partial is not None:
            cache.save(path)
            partial.unlink(missing_ok=True)
        return cache

    def save(self, path: Path_) -> None:
        """Write the cache to one `.npz` file, atomically and without pickle.

        Args:
            path: Where to.
        """
        try:
            library = version("keras_jsigr")
        except PackageNotFoundError:
            library = "unknown"
        header = {"identity": self.identity, "keras_jsigr": library}
        write_cache_file(
            Path(path).expanduser(), header, {"keys": self.keys, "codes": self.codes}
        )

    @classmethod
    def load(cls, path: Path_) -> PerturbationCache:
        """Read a cache from its file.

        Args:
            path: The file.

        Returns:
            The cache.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If the file is damaged or no cache.
        """
        header, arrays = read_cache_file(Path(path).expanduser())
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
        """Find the coefficients of examples by their content.

        Args:
            x: Data `(B, *S)` in any order, with or without repetitions.

        Returns:
            Float32 `(B, K)`, and bool `(B,)`, whether the example is in the cache; the
            coefficients of an example that is not are zero.
        """
        keys = hashed_examples(np.asarray(as_fit_sees(x)))
        rows = np.minimum(np.searchsorted(self.keys, keys), self.size - 1)
        found = self.keys[rows] == keys
        codes = self.codes[rows] * found[:, np.newaxis]
        return codes.astype(np.float32) / np.float32(255.0), found

    def maps(self, x: Any) -> npt.NDArray[np.float32]:
        """Rebuild the maps of examples, `sum_k c_k hat_k`.

        Args:
            x: Data `(B, *S)`.

        Returns:
            Float32 `(B, *map_shape)` in [0, 1]; zero for examples not in the cache.
        """
        return np.asarray(interpolate(self.bank, self.lookup(x)[0]))
