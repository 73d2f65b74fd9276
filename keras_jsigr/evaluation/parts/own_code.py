"""What a class of the user's own does, in a few digits."""

from __future__ import annotations

import hashlib
from types import CodeType, FunctionType
from typing import Any

import numpy as np

from keras_jsigr.evaluation.store import array_digest

Functions = list[FunctionType]

_PACKAGE = __name__.partition(".")[0]
_PLAIN = (bool, int, float, complex, str, bytes, type(None), type(...))
_DATA = (*_PLAIN, tuple, list, frozenset, set, dict, np.ndarray)
# Where methods and decorated functions keep the function they are made of.
_HOLDERS = ("__func__", "fget", "func", "python_function", "__wrapped__")


def class_identity(kind: type) -> dict[str, str]:
    """Return what tells apart two classes: name and, if it is not ours, code.

    Args:
        kind: Class of an attack or of a saliency method.

    Returns:
        `class`, and `code` for classes of other packages, see `own_code`.

    Example:
        >>> from keras_jsigr.attacks import PGD
        >>> from keras_jsigr.evaluation.parts.own_code import class_identity
        >>> class_identity(PGD)
        {'class': 'keras_jsigr.attacks.gradient.pgd.PGD'}
    """
    code = own_code(kind)
    named = {"class": f"{kind.__module__}.{kind.__qualname__}"}
    return named if code is None else {**named, "code": code}


def own_code(kind: type) -> str | None:
    """Hash the code of a class and its bases, up to those of this package.

    Name and settings say nothing of what its methods do, and whoever
    repairs them must not get the results of before. What counts is what runs, the
    bytecode: the source on the disk may be newer, or that of another class of the name.
    Functions and data of the same module that the methods use belong to it, as they
    are now; what is imported does not. Another version of Python makes another hash.

    Args:
        kind: Class of an attack or of a saliency method.

    Returns:
        16 hexadecimal digits; `None` for the classes of this package, whose version
        says what they do.

    Example:
        >>> from keras_jsigr.attacks import PGD
        >>> from keras_jsigr.evaluation.parts.own_code import own_code
        >>> own_code(PGD) is None
        True
        >>> len(own_code(type("Mine", (PGD,), {"__module__": "mine"})))
        16
    """
    own = [each for each in kind.__mro__ if not _known(each.__module__)]
    if not own:
        return None
    found: Functions = []
    parts = [
        f"{name} {_of(value, found)}"
        for each in own
        for name, value in sorted(vars(each).items())
        if not name.startswith("__") or isinstance(value, FunctionType)
    ]
    # Each once, however they call each other; the list grows while it is gone through.
    parts += [_of_function(function, found) for function in found]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _known(module: str) -> bool:
    return module.partition(".")[0] in (_PACKAGE, "builtins", "abc", "typing")


def _of(value: Any, found: Functions) -> str:
    if isinstance(value, CodeType):
        return _of((value.co_code.hex(), value.co_names, value.co_consts), found)
    if isinstance(value, FunctionType):
        if value not in found:
            found.append(value)
        return f"function {found.index(value)}"
    if isinstance(value, frozenset | set):
        # Their order differs between processes.
        return f"set {sorted(_of(item, found) for item in value)}"
    if isinstance(value, tuple | list):
        return f"{type(value).__name__} {[_of(item, found) for item in value]}"
    if isinstance(value, dict):
        return f"dict {_of(tuple(value.items()), found)}"
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        return array_digest(value)
    if isinstance(value, _PLAIN):
        return repr(value)
    for holder in _HOLDERS:
        inner = getattr(value, holder, None)
        if isinstance(inner, FunctionType):
            return f"{type(value).__name__} {_of(inner, found)}"
    return type(value).__name__


def _of_function(function: FunctionType, found: Functions) -> str:
    code = function.__code__
    used = {
        name: function.__globals__[name]
        for name in _names(code)
        if name in function.__globals__
    }
    # What belongs to other modules has a version of its own.
    near = [
        (name, value)
        for name, value in sorted(used.items())
        if isinstance(value, _DATA)
        or getattr(value, "__module__", None) == function.__module__
    ]
    closure = [cell.cell_contents for cell in function.__closure__ or () if _full(cell)]
    defaults = (function.__defaults__, sorted((function.__kwdefaults__ or {}).items()))
    return _of((code, defaults, closure, near), found)


def _names(code: CodeType) -> set[str]:
    inner = [part for part in code.co_consts if isinstance(part, CodeType)]
    return set(code.co_names).union(*map(_names, inner))


def _full(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True
