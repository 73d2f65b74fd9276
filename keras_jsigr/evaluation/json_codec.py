"""Data classes to strict JSON and back, exactly."""

from __future__ import annotations

import dataclasses
import math
import sys
import types
import typing
from collections.abc import Mapping
from typing import Any

import numpy as np

# JSON has no infinity: it is written as `{"$float": "inf"}` and read back as a float.
_FLOAT = "$float"
_LARGEST = sys.float_info.max
_NO_NUMBERS = {"inf": math.inf, "-inf": -math.inf, "nan": math.nan}


def to_json(value: Any, place: str = "value") -> Any:
    """Turn data classes and plain values into what strict JSON can hold.

    Tuples become lists, NumPy scalars Python numbers; NaN and infinity, which strict
    JSON lacks, become `{"$float": "nan"}` and the like.

    Args:
        value: A data class, mapping with string keys, list, tuple, string, number,
            bool or None, nested as you like.
        place: What the value is called in messages.

    Returns:
        Dictionaries, lists, strings, finite numbers, bools and None.

    Raises:
        TypeError: If something else is in it.

    Example:
        >>> from keras_jsigr.evaluation.json_codec import to_json
        >>> from keras_jsigr.evaluation.rate import Rate
        >>> to_json({"clean": Rate(3, 4), "limit": float("inf")})
        {'clean': {'correct': 3, 'total': 4}, 'limit': {'$float': 'inf'}}
    """
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {_FLOAT: str(value)}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: to_json(item, f"{place}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(item, f"{place}[{i}]") for i, item in enumerate(value)]
    raise TypeError(
        f"`{place}` does not fit into JSON: got {type(value).__name__}, expected "
        "numbers, strings, lists and dictionaries with string keys. Convert it first."
    )


def from_json(kind: Any, value: Any, place: str = "value") -> Any:
    """Turn what `to_json` returned back into an object of a type.

    Args:
        kind: A data class, or a type hint made of data classes, `list`, `tuple`,
            `dict`, `Literal`, unions, numbers and strings; `Any` takes everything.
        value: The JSON value.
        place: What the value is called in messages.

    Returns:
        The object.

    Raises:
        ValueError: If the value does not fit the type.

    Example:
        >>> from keras_jsigr.evaluation.json_codec import from_json
        >>> from keras_jsigr.evaluation.rate import Rate
        >>> from_json(list[Rate], [{"correct": 3, "total": 4}])
        [Rate(correct=3, total=4)]
    """
    if isinstance(value, dict) and set(value) == {_FLOAT}:
        value = _no_number(value[_FLOAT], place)
    if isinstance(value, int) and abs(value) > _LARGEST:
        raise ValueError(
            f"`{place}` is damaged: got an integer of {value.bit_length()} bits, "
            "expected a number that a float can hold. Make the file again."
        )
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return _any_from_json(value)
    if origin in (typing.Union, types.UnionType):
        return _first_fitting(arguments, value, place)
    if origin is typing.Literal and value in arguments:
        return value
    if dataclasses.is_dataclass(kind) and isinstance(value, dict):
        return _dataclass_from_json(kind, value, place)
    if origin is list and isinstance(value, list):
        return [
            from_json(arguments[0], v, f"{place}[{i}]") for i, v in enumerate(value)
        ]
    if origin is tuple and isinstance(value, list) and len(value) == len(arguments):
        pairs = zip(arguments, value, strict=True)
        return tuple(from_json(a, v, f"{place}[{i}]") for i, (a, v) in enumerate(pairs))
    if origin is dict and isinstance(value, dict):
        return {k: from_json(arguments[1], v, f"{place}.{k}") for k, v in value.items()}
    number = not isinstance(value, bool) and isinstance(value, int | float)
    if kind is float and number:
        return float(value)
    if isinstance(kind, type) and type(value) is kind:
        return value
    name = getattr(kind, "__name__", str(kind))
    raise ValueError(
        f"`{place}` is damaged: got {str(value)[:60]!r}, expected {name}. "
        "Make the file again."
    )


def _no_number(name: Any, place: str) -> float:
    if not isinstance(name, str) or name not in _NO_NUMBERS:
        raise ValueError(
            f"`{place}` is damaged: got the float {str(name)[:60]!r}, expected one of "
            f"{list(_NO_NUMBERS)}. Make the file again."
        )
    return _NO_NUMBERS[name]


def _any_from_json(value: Any) -> Any:
    if isinstance(value, list):
        return [from_json(Any, item) for item in value]
    if isinstance(value, dict):
        return {key: from_json(Any, item) for key, item in value.items()}
    return value


def _first_fitting(kinds: tuple[Any, ...], value: Any, place: str) -> Any:
    if value is None and type(None) in kinds:
        return None
    rest = [kind for kind in kinds if kind is not type(None)]
    for kind in rest[:-1]:
        try:
            return from_json(kind, value, place)
        except ValueError:
            continue
    return from_json(rest[-1], value, place)


def _dataclass_from_json(kind: Any, value: dict[str, Any], place: str) -> Any:
    hints = typing.get_type_hints(kind)
    fields = {f.name: f for f in dataclasses.fields(kind) if f.init}
    needed = {
        name
        for name, f in fields.items()
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    }
    wrong = sorted((needed - set(value)) | (set(value) - set(fields)))
    if wrong:
        raise ValueError(
            f"`{place}` is damaged: {wrong} missing or unknown, expected "
            f"{sorted(fields)}. Make the file again."
        )
    parts = {k: from_json(hints[k], v, f"{place}.{k}") for k, v in value.items()}
    return kind(**parts)
