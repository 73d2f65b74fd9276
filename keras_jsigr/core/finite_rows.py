"""Which examples hold numbers alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def finite_rows(values: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Tell which rows have no NaN and nothing infinite.

    Args:
        values: Float `(N, ...)`.

    Returns:
        Bool `(N,)`.

    Example:
        >>> import numpy as np
        >>> from keras_jsigr.core.finite_rows import finite_rows
        >>> finite_rows(np.array([[1.0, np.inf], [1.0, 2.0]])).tolist()
        [False, True]
    """
    others = tuple(range(1, values.ndim))
    found: npt.NDArray[np.bool_] = np.isfinite(values).all(axis=others)
    return found
