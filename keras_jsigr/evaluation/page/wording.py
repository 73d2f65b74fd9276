"""Figures as people read them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from keras_jsigr.evaluation.rate import Rate

DASH = "\N{EN DASH}"
NORMS = {"linf": "L∞", "l2": "L2", "l1": "L1", "l0": "L0"}


def percent(share: float) -> str:
    """Write a share in percent, claiming neither none nor all unless it is.

    Args:
        share: 0..1.

    Returns:
        One digit after the point.

    Example:
        >>> from keras_jsigr.evaluation.page.wording import percent
        >>> percent(0.5432), percent(1.0), percent(0.9999), percent(0.0001)
        ('54.3 %', '100.0 %', '> 99.9 %', '< 0.1 %')
    """
    if not math.isfinite(share):
        return DASH
    # The ends of an interval are rounded sums: what is that close to 0 or 1 is it.
    if 1e-9 < share < 0.0005:
        return "< 0.1 %"
    if 0.9995 <= share < 1 - 1e-9:
        return "> 99.9 %"
    return f"{abs(100 * share):.1f} %"


def between(rate: Rate) -> str:
    """Write the 95 % interval of a rate.

    Args:
        rate: Of examples.

    Returns:
        Both ends, in percent.

    Example:
        >>> from keras_jsigr.evaluation.page.wording import between
        >>> from keras_jsigr.evaluation.rate import Rate
        >>> between(Rate(80, 100)).encode("ascii", "replace")
        b'71.1?86.7 %'
    """
    return f"{percent(rate.low).removesuffix(' %')}{DASH}{percent(rate.high)}"


def number(value: Any) -> str:
    """Write a number in at most four significant digits, whole ones in full.

    Args:
        value: An int or float; everything else is written as `str` does.

    Returns:
        The text.

    Example:
        >>> from keras_jsigr.evaluation.page.wording import number
        >>> number(1234567), number(0.031372549), number(1e-9), number(float("inf"))
        ('1,234,567', '0.03137', '1e-09', '∞')
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    if math.isnan(value):
        return "not a number"
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    # Four digits of a large number would be given as a power of ten.
    return f"{value:,.0f}" if 1e4 <= abs(value) < 1e15 else f"{value:.4g}"


def radius(epsilon: Any, input_range: Any = None) -> str:
    """Write a radius, with the usual fraction of 255 for inputs from 0 to 1.

    Args:
        epsilon: In input units.
        input_range: `(low, high)` of valid inputs.

    Returns:
        The text.

    Example:
        >>> from keras_jsigr.evaluation.page.wording import radius
        >>> radius(8 / 255, (0.0, 1.0)), radius(0.1, (0.0, 1.0)), radius(8, (0, 255))
        ('0.03137 (8/255)', '0.1', '8')
    """
    text = number(epsilon)
    if list(input_range or ()) != [0.0, 1.0] or not isinstance(epsilon, float):
        return text
    pixels = epsilon * 255
    if not math.isfinite(pixels) or not 0 < pixels < 100 or len(text) < 5:
        return text
    whole = round(pixels)
    return f"{text} ({whole}/255)" if whole and abs(pixels - whole) < 1e-4 else text


def duration(seconds: float) -> str:
    """Write a time span.

    Args:
        seconds: At least 0.

    Returns:
        In seconds, minutes or hours.

    Example:
        >>> from keras_jsigr.evaluation.page.wording import duration
        >>> duration(0.25), duration(7.04), duration(200.0), duration(7500.0)
        ('0.25 s', '7.0 s', '3 min 20 s', '2 h 5 min')
    """
    if not math.isfinite(seconds):
        return DASH
    if seconds < 59.95:
        return f"{seconds:.2f} s" if seconds < 1 else f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def listing(names: Sequence[str]) -> str:
    """Join names as a sentence does.

    Args:
        names: Any number.

    Returns:
        The text.

    Example:
        >>> from keras_jsigr.evaluation.page.wording import listing
        >>> listing(["a", "b", "c"])
        'a, b and c'
    """
    *most, last = names or [""]
    return f"{', '.join(most)} and {last}" if most else last


def plain(value: Any) -> str:
    """Write any value of a JSON file on one line.

    Args:
        value: Dictionaries, lists, strings, numbers, bools and None, nested.

    Returns:
        The text, for people: not to be read back.

    Example:
        >>> from keras_jsigr.evaluation.page.wording import plain
        >>> plain({"input_range": [0.0, 1.0], "seed": None})
        'input_range: (0, 1), seed: none'
    """
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {plain(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return f"({', '.join(plain(item) for item in value)})"
    # Seeds and settings in full: these are for repeating, not for reading.
    return (
        f"{value:.12g}".replace("inf", "∞") if isinstance(value, float) else f"{value}"
    )
