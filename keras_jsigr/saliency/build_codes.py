"""Compute the rows of a cache, and take up a killed build where it stopped."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from keras_jsigr.saliency.batched import BatchedExplainer
from keras_jsigr.saliency.cache_file import read_cache_file, write_cache_file

Codes = npt.NDArray[np.uint8]
_SECONDS_BETWEEN_SAVES = 10.0


def build_codes(
    explain: BatchedExplainer,
    x: npt.NDArray[Any],
    y: npt.NDArray[Any] | None,
    *,
    partial: Path | None,
    identity: Mapping[str, Any],
    verbose: int = 1,
) -> Codes:
    """Compute the quantized coefficients of all examples in order.

    What is done so far goes to the file `partial` about every ten seconds and when an
    error or Ctrl-C ends the build; the next build with the same identity goes on there.

    Args:
        explain: Gives the normalized coefficients `(B, K)` of examples and labels.
        x: Data `(N, *S)`.
        y: Labels `(N, ...)` or `None`.
        partial: Where to keep what is done so far; `None` keeps nothing.
        identity: Settings and fingerprints that a partial file must share.
        verbose: 1 shows a progress bar, 0 is silent.

    Returns:
        Uint8 `(N, K)`, `round(255 c)`.

    Raises:
        ValueError: If the teacher's outputs are not finite.

    Example:
        >>> import numpy as np
        >>> from keras_jsigr.saliency.batched import BatchedExplainer
        >>> from keras_jsigr.saliency.build_codes import build_codes
        >>> x = np.array([[0.0, 1.0]], "float32")
        >>> explain = BatchedExplainer(lambda x, y: x)
        >>> build_codes(explain, x, None, partial=None, identity={}, verbose=0)
        array([[  0, 255]], dtype=uint8)
    """
    parts = _resume(partial, identity, verbose)
    done = sum(map(len, parts))
    bar = keras.utils.Progbar(len(x), verbose=verbose, unit_name="example")
    saved = time.monotonic()
    try:
        while done < len(x):
            batch = slice(done, done + explain.batch_size)
            found = explain(x[batch], None if y is None else y[batch])
            parts.append(quantize(found))
            done += len(found)
            bar.update(done)
            if time.monotonic() - saved > _SECONDS_BETWEEN_SAVES:
                parts = _save(partial, identity, parts)
                saved = time.monotonic()
    except BaseException:
        if parts:
            _save(partial, identity, parts)
        raise
    return np.concatenate(parts)


def quantize(coefficients: npt.ArrayLike) -> Codes:
    """Round coefficients in [0, 1] to 256 steps, `round(255 c)`.

    Args:
        coefficients: Float, any shape.

    Returns:
        Uint8 of the same shape; `codes / 255` is off by at most 1/510.

    Raises:
        ValueError: If a coefficient is not finite.

    Example:
        >>> from keras_jsigr.saliency.build_codes import quantize
        >>> quantize([0.0, 0.5, 1.0]).tolist()
        [0, 128, 255]
    """
    values = np.asarray(coefficients, np.float32)
    if not np.isfinite(values).all():
        raise ValueError(
            "Got coefficients that are NaN or infinite, expected numbers in [0, 1]. "
            "Check the teacher's outputs on this data: it gives NaN or infinity."
        )
    codes: Codes = np.rint(np.clip(values, 0.0, 1.0) * 255.0).astype(np.uint8)
    return codes


def _save(
    partial: Path | None, identity: Mapping[str, Any], parts: list[Codes]
) -> list[Codes]:
    codes = np.concatenate(parts)
    if partial is not None:
        write_cache_file(partial, identity, {"codes": codes})
    return [codes]


def _resume(
    partial: Path | None, identity: Mapping[str, Any], verbose: int
) -> list[Codes]:
    """Rows of an earlier build; anything that does not fit is started afresh."""
    if partial is None:
        return []
    try:
        header, arrays = read_cache_file(partial)
    except (FileNotFoundError, ValueError):
        return []
    if header != identity:
        return []
    if verbose:
        print(f"Going on with {len(arrays['codes'])} examples from '{partial}'.")
    return [arrays["codes"]]
