"""The range of valid inputs, as it is given or as a hardened model knows it."""

from __future__ import annotations

from typing import Any

from keras_jsigr.core import settings
from keras_jsigr.model import JSIGRModel


def known_range(given: tuple[float, float] | None, *models: Any) -> tuple[float, float]:
    """Return the range that is given, or that of the hardened models, or (0, 1).

    Args:
        given: `(low, high)`, or `None`.
        *models: Classifiers, hardened or not.

    Returns:
        `(low, high)`.

    Raises:
        TypeError: If `given` is no pair.
        ValueError: If `given` is no range, or hardened models take different ones.

    Example:
        >>> from keras_jsigr.evaluation.known_range import known_range
        >>> known_range(None, lambda x: x), known_range((0, 255), lambda x: x)
        ((0.0, 1.0), (0.0, 255.0))
    """
    if given is not None:
        return settings.interval("input_range", given)
    known = {m.settings.input_range for m in models if isinstance(m, JSIGRModel)}
    if len(known) > 1:
        raise ValueError(
            f"Got no input_range and models hardened for {sorted(known)}, expected one "
            "range. Pass input_range, and models that take it."
        )
    return known.pop() if known else (0.0, 1.0)
