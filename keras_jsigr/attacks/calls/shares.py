"""Settings that are a share of something."""

from __future__ import annotations

from typing import Any

from keras_jsigr.attacks.calls import settings


def share(name: str, value: Any, *, ends: str = "[]") -> float:
    """Return `value` as a float if it lies between zero and one.

    Args:
        name: What the value is called in messages.
        value: Any object.
        ends: `"[]"` allows zero and one, `"(]"` forbids zero, `"()"` forbids both.

    Returns:
        The share.

    Raises:
        TypeError: If it is no number.
        ValueError: If it is out of range.

    Example:
        >>> from keras_jsigr.attacks.calls.shares import share
        >>> share("diversity", 1)
        1.0
    """
    result = settings.number(name, value)
    at_end = (result == 0.0 and ends[0] == "(") or (result == 1.0 and ends[1] == ")")
    if at_end or not 0.0 <= result <= 1.0:
        raise ValueError(
            f"`{name}` is out of range: got {value!r}, expected a share in "
            f"{ends[0]}0, 1{ends[1]}. Divide percentages by 100."
        )
    return result
