"""Refuse settings that make no sense, before any work."""

from __future__ import annotations

import math
from collections.abc import Collection
from numbers import Integral, Real
from typing import Any


def check_number(
    name: str, value: Any, *, minimum: float = 0.0, maximum: float = math.inf
) -> None:
    """Refuse what is no finite number within the limits.

    Args:
        name: What the value is called in messages.
        value: Any object.
        minimum: The smallest allowed value.
        maximum: The largest allowed value.

    Raises:
        ValueError: If it is not.

    Example:
        >>> from keras_jsigr.saliency.methods.settings import check_number
        >>> check_number("noise", 0.15)
    """
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or not minimum <= value <= maximum:
        limit = "" if maximum == math.inf else f" and at most {maximum:g}"
        raise ValueError(
            f"Got {name} {value!r}, expected a finite number of at least "
            f"{minimum:g}{limit}. Leave it out for the default."
        )


def check_count(name: str, value: Any, *, minimum: int = 1) -> None:
    """Refuse what is no integer that is large enough.

    Args:
        name: What the value is called in messages.
        value: Any object.
        minimum: The smallest allowed value.

    Raises:
        ValueError: If it is not.

    Example:
        >>> from keras_jsigr.saliency.methods.settings import check_count
        >>> check_count("samples", 50)
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or value < minimum:
        raise ValueError(
            f"Got {name} {value!r}, expected an integer of at least {minimum}. "
            "Leave it out for the default."
        )


def check_choice(name: str, value: Any, choices: Collection[Any]) -> None:
    """Refuse what is not among the choices.

    Args:
        name: What the value is called in messages.
        value: Any object.
        choices: All that is allowed.

    Raises:
        ValueError: If it is something else.

    Example:
        >>> from keras_jsigr.saliency.methods.settings import check_choice
        >>> check_choice("rule", "midpoint", ("midpoint", "trapezoid"))
    """
    if value not in choices:
        raise ValueError(
            f"Unknown {name}: got {value!r}, expected one of {tuple(choices)}. "
            "Choose one of these."
        )
