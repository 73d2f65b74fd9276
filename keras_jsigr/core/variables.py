"""Variables: scalars of a model, and passes that leave all variables alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any

import keras

# What the blocks of this thread let variables be, by the variable's id.
_VALUES: ContextVar[Mapping[int, tuple[Any, Any]]] = ContextVar(
    "values", default=MappingProxyType({})
)


@contextmanager
def stateless(values: Iterable[tuple[Any, Any]] = ()) -> Iterator[keras.StatelessScope]:
    """Discard assignments of layers in this thread; `values` replace variables."""
    known = {**_VALUES.get(), **{id(pair[0]): pair for pair in values}}
    token = _VALUES.set(known)
    try:
        with keras.StatelessScope() as scope:
            for pair in known.values():
                scope.add_update(pair)  # unlike `state_mapping`, in their own dtype
            yield scope
    finally:
        _VALUES.reset(token)


def add_scalar_variable(
    model: keras.Model, name: str, value: float, dtype: str = "float32", **kwargs: Any
) -> Any:
    """Give a model a scalar variable that no optimizer trains."""
    constant = keras.initializers.Constant(value)
    return model.add_weight(
        (), constant, dtype, trainable=False, autocast=False, name=name, **kwargs
    )


def read_scalar(variable: Any) -> float:
    """Read a scalar variable from outside of a step, mirrored on devices or not."""
    return float(keras.ops.convert_to_numpy(variable))
