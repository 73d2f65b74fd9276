"""Checks of arguments, names of choices, and the one rule for `verbose`."""

from __future__ import annotations

import math
from collections.abc import Collection
from numbers import Integral, Real
from typing import Any, Literal, get_args

import keras

NormName = Literal["linf", "l2", "l1"]
BaselineName = Literal["blur", "mean", "zero"]
ChangeName = Literal["squared_logits", "probability_drop", "sarfa"]
BASELINES: tuple[str, ...] = get_args(BaselineName)
CHANGES: tuple[str, ...] = get_args(ChangeName)


def number(
    name: str,
    value: Any,
    *,
    minimum: float = -math.inf,
    above: bool = False,
    advice: str = "Choose another.",
) -> float:
    """Return `value` as a float if it is a finite number that is large enough."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(
            f"`{name}` is not a number: got {value!r} ({type(value).__name__}), "
            "expected a Python or NumPy number. Pass one number."
        )
    result = float(value)
    if not math.isfinite(result) or result < minimum or (above and result == minimum):
        bound = "" if minimum == -math.inf else f" {'>' if above else '>='} {minimum:g}"
        raise ValueError(
            f"`{name}` is out of range: got {value!r}, expected a finite number{bound}. {advice}"
        )
    return result


def share(name: str, value: Any, *, ends: str = "[]") -> float:
    """Return `value` as a float if it lies between zero and one."""
    result = number(name, value)
    at_end = (result == 0.0 and ends[0] == "(") or (result == 1.0 and ends[1] == ")")
    if at_end or not 0.0 <= result <= 1.0:
        raise ValueError(
            f"`{name}` is out of range: got {value!r}, expected a share in "
            f"{ends[0]}0, 1{ends[1]}. Divide percentages by 100."
        )
    return result


def count(name: str, value: Any, *, minimum: int = 1) -> int:
    """Return `value` as an int if it is an integer that is large enough."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(
            f"`{name}` is not an integer: got {value!r} ({type(value).__name__}), "
            f"expected an integer >= {minimum}. Pass int(...) if it is a whole number."
        )
    if not minimum <= int(value) < 2**31:
        raise ValueError(
            f"`{name}` is out of range: got {value!r}, expected an integer >= "
            f"{minimum} and below 2**31. Choose another."
        )
    return int(value)


def counts(name: str, values: Any) -> tuple[int, ...]:
    """Return `values` as a tuple of integers >= 1, at least one of them."""
    if not isinstance(values, tuple | list):
        raise TypeError(
            f"`{name}` is not a list: got {values!r}, expected integers >= 1. Pass for "
            "instance (2, 4)."
        )
    if not values:
        raise ValueError(
            f"`{name}` is empty: got {values!r}, expected at least one integer >= 1. "
            "Pass for instance (1,)."
        )
    return tuple(count(name, value) for value in values)


def choice(
    name: str,
    value: Any,
    options: Collection[Any],
    *,
    advice: str = "Check the spelling.",
) -> None:
    """Check that `value` is one of `options`."""
    if not any(type(value) is type(option) and value == option for option in options):
        raise ValueError(
            f"Unknown `{name}`: got {value!r}, expected one of {list(options)}. {advice}"
        )


def interval(name: str, value: Any) -> tuple[float, float]:
    """Return `value` as two floats in ascending order."""
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise TypeError(
            f"`{name}` is not a pair: got {value!r}, expected (low, high). "
            "Pass for instance (0.0, 1.0)."
        )
    low, high = (number(name, end) for end in value)
    if low >= high:
        raise ValueError(
            f"`{name}` is empty or reversed: got {value!r}, expected low < high. "
            f"Pass {(high, low) if low > high else (0.0, 1.0)}, or the range of your inputs."
        )
    return low, high


def norm(value: Any) -> NormName:
    """Return the name of a norm, which may be given as `np.inf`, `"inf"`, 2 or 1."""
    text = str(value).lower() if isinstance(value, str | Real) else ""
    name = {"inf": "linf", "2": "l2", "2.0": "l2", "1": "l1", "1.0": "l1"}.get(text, text)
    if isinstance(value, bool) or name not in get_args(NormName):
        raise ValueError(
            f"Unknown `norm`: got {value!r}, expected one of ['linf', 'l2', 'l1'], "
            "np.inf, 2 or 1. Check the spelling."
        )
    return name  # type: ignore[return-value]


def is_verbose(verbose: Any) -> bool:
    """Tell whether to print: `verbose` is on, and so is Keras' interactive logging."""
    return bool(verbose) and bool(keras.config.is_interactive_logging_enabled())


def tell(message: str, verbose: Any = 1) -> None:
    """Print one line of progress, by the rule of `is_verbose`."""
    if is_verbose(verbose):
        print(f"keras_jsigr: {message}", flush=True)
