"""Rows sorted by content key, each content once."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

_CHUNK = 1024


def sorted_rows(
    keys: npt.NDArray[np.int64], x: npt.NDArray[Any]
) -> npt.NDArray[np.int64]:
    """Choose the order in which rows are stored: by key, repeated examples once.

    Args:
        keys: Int64 `(N,)`, the content keys of `x`.
        x: Data `(N, *S)`.

    Returns:
        Indices of the rows to keep, sorted by key; of equal examples the first one.

    Raises:
        ValueError: If different examples have the same key.

    Example:
        >>> import numpy as np
        >>> from keras_jsigr.saliency.sorted_rows import sorted_rows
        >>> sorted_rows(np.array([7, 3, 7]), np.array([[1], [0], [1]])).tolist()
        [1, 0]
    """
    order = np.argsort(keys, kind="stable").astype(np.int64)
    repeats = np.flatnonzero(np.diff(keys[order]) == 0) + 1
    for start in range(0, len(repeats), _CHUNK):
        at = repeats[start : start + _CHUNK]
        one, other = x[order[at - 1]], x[order[at]]
        same = np.equal(one, other) | (np.not_equal(one, one) & (other != other))
        wrong = np.flatnonzero(~same.reshape(len(at), -1).all(axis=1))
        if len(wrong):
            pair = sorted((int(order[at[wrong[0]] - 1]), int(order[at[wrong[0]]])))
            raise ValueError(
                f"Got the same 64-bit content key for the different examples {pair}, "
                "expected one key per content. Remove one of them, or scale the data "
                "(a factor of 0.999 changes all keys)."
            )
    return np.delete(order, repeats)
