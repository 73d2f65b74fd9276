"""Whether points are in the ball and the range, measured apart from the search."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from keras_jsigr.attacks.search.rounding import SPACING

_RELATIVE, _ABSOLUTE = 1e-4, 1e-6
_ROWS = 256


def inside(
    x_adv: npt.NDArray[Any],
    x: npt.NDArray[Any],
    epsilon: float,
    norm: str,
    input_range: tuple[float, float],
) -> npt.NDArray[np.bool_]:
    """Tell per example whether a point is in the ball and the range, up to rounding.

    Args:
        x_adv: Float `(N, *S)`.
        x: Float `(N, *S)`, the centres.
        epsilon: Radius in input units.
        norm: `"linf"`, `"l2"` or `"l1"`.
        input_range: `(low, high)`.

    Returns:
        Bool `(N,)`; False where a value is NaN.

    Raises:
        ValueError: If the shapes differ.

    Example:
        >>> import numpy as np
        >>> from keras_jsigr.attacks.calls.inside import inside
        >>> x = np.zeros((2, 1), "float32")
        >>> inside(x + [[0.1], [0.2]], x, 0.1, "linf", (0.0, 1.0)).tolist()
        [True, False]
    """
    if x_adv.shape != x.shape:
        raise ValueError(
            f"the attack returned shape {x_adv.shape}, expected {x.shape}. Return one "
            "point per example."
        )
    low, high = input_range
    reach = epsilon * (1.0 + _RELATIVE) + range_slack(np.float32, input_range)
    # An end of the range that the dtype of the inputs lacks is one of its neighbours.
    slack = range_slack(x.dtype, input_range)
    valid = np.zeros(len(x), bool)
    # In parts: float64 copies of all examples at once would be many times their size.
    for start in range(0, len(x), _ROWS):
        rows = slice(start, start + _ROWS)
        near = distance(x_adv[rows], x[rows], norm) <= reach
        flat = x_adv[rows].reshape(len(near), -1).astype(np.float64)
        allowed = (flat >= low - slack).all(-1) & (flat <= high + slack).all(-1)
        valid[rows] = near & allowed
    return valid


def range_slack(dtype: Any, input_range: tuple[float, float]) -> float:
    """Return how far rounding alone may put values outside of their range.

    Args:
        dtype: Of the values, floating.
        input_range: `(low, high)`.

    Returns:
        Input units: 1e-6 of the larger end, or 1e-6; in half precision half of the
        distance of neighbouring numbers there if that is more.

    Example:
        >>> from keras_jsigr.attacks.calls.inside import range_slack
        >>> range_slack("float32", (0.0, 1.0)), range_slack("float16", (-4.0, 1.0))
        (1e-06, 0.001953125)
    """
    largest = max(map(abs, input_range))
    rounding = SPACING.get(tf.as_dtype(dtype), 0.0) / 2 * largest
    return max(_ABSOLUTE * max(1.0, largest), rounding)


def distance(
    x_adv: npt.NDArray[Any], x: npt.NDArray[Any], norm: str
) -> npt.NDArray[np.float64]:
    """Return the length of each perturbation.

    Args:
        x_adv: Float `(N, *S)`.
        x: Float `(N, *S)`.
        norm: `"linf"`, `"l2"` or `"l1"`.

    Returns:
        Float64 `(N,)` in input units.

    Example:
        >>> import numpy as np
        >>> from keras_jsigr.attacks.calls.inside import distance
        >>> distance(np.array([[3.0, 4.0]]), np.zeros((1, 2)), "l2").tolist()
        [5.0]
    """
    order = {"linf": np.inf, "l2": 2, "l1": 1}[norm]
    difference = x_adv.astype(np.float64) - x.astype(np.float64)
    lengths: npt.NDArray[np.float64] = np.linalg.norm(
        difference.reshape(len(x), -1), order, axis=1
    )
    return lengths
