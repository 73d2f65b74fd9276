"""Variables: scalars of a model, and passes that leave all variables alone."""

from __future__ import annotations

import functools
import types
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_jsigr.core.keras_compat import all_layers

# What the blocks of this thread let variables be, by the variable's id.
_VALUES: ContextVar[Mapping[int, tuple[Any, Any]]] = ContextVar(
    "values", default=types.MappingProxyType({})
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


# The name of variables that the package keeps beside a model: they go on.
OWN = "keras_jsigr"


@contextmanager
def unchanged(*models: Any, layers: bool = True) -> Iterator[list[str]]:
    """Put back the variables of models at the end; list which had changed.

    Seeds are put back too, but not listed: that they change is what they are for. Without
    `layers`, what Keras knows is left alone: it may be trained in another thread.
    """
    items = [item for model in models for item in held(model)]
    variables = {id(v): v for item in items for v in _variables(item, layers)}
    before = [(v, _value(v)) for v in variables.values() if not v.name.startswith(OWN)]
    changed: list[str] = []
    try:
        yield changed
    finally:
        for variable, value in before:
            if _value(variable).tobytes() != value.tobytes():
                variable.assign(value)
                if "seed" not in variable.name and "StateVar" not in variable.name:
                    changed.append(getattr(variable, "path", variable.name))


def _value(variable: Any) -> Any:
    return np.array(tf.convert_to_tensor(variable).numpy())


_FUNCTIONS = (tf.types.experimental.ConcreteFunction, tf.types.experimental.PolymorphicFunction)
_HOLDERS = (keras.Layer, keras.Variable, tf.Module, tf.Variable, _FUNCTIONS[0])


def held(subject: Any) -> list[Any]:
    """Find what has variables in what a callable holds or names."""
    found, seen, todo = [], set(), [(subject, 0)]
    while todo:
        item, depth = todo.pop()
        if id(item) in seen or depth > 6:
            continue
        seen.add(id(item))
        if isinstance(item, _HOLDERS):
            found.append(item)
        if not isinstance(item, _HOLDERS) or isinstance(item, tf.Module):
            todo += [(part, depth + 1) for part in _parts(item)]
    return found


def _variables(item: Any, layers: bool) -> Iterable[Any]:
    """List the variables of what `held` found; layers may have some unknown to Keras."""
    if isinstance(item, keras.Layer):
        values = [value for layer in all_layers(item) for value in vars(layer).values()]
        plain = [value for value in values if isinstance(value, tf.Variable)]
        return plain + (item.variables if layers else [])
    if isinstance(item, _FUNCTIONS[0]):
        with suppress(AssertionError):  # some are gone
            return [v for v in item.graph.variables if layers or not v.trainable]
        return []
    return item.variables if isinstance(item, tf.Module) else [item]


def _parts(item: Any) -> Iterable[Any]:
    """List what a callable, or a plain object, is made of."""
    if isinstance(item, _FUNCTIONS[1]):
        return [item.python_function]
    if isinstance(item, functools.partial):
        return [item.func, *item.args, *item.keywords.values()]
    if isinstance(item, types.MethodType):
        return [item.__self__, item.__func__]
    if isinstance(item, types.FunctionType):
        cells: list[Any] = []
        for cell in item.__closure__ or ():
            with suppress(ValueError):  # assigned later
                cells.append(cell.cell_contents)
        cells += [*(item.__defaults__ or ()), *(item.__kwdefaults__ or {}).values()]
        named = [item.__globals__.get(name) for name in _names(item.__code__)]
        return [*cells, *named, *vars(item).values()]
    if isinstance(item, list | tuple | set):
        return list(item)[:100]
    if isinstance(item, dict):
        return list(item.values())[:100]
    if isinstance(item, types.ModuleType | type | np.ndarray) or tf.is_tensor(item):
        return []
    slots = [getattr(item, name, None) for name in getattr(type(item), "__slots__", ())]
    return [*getattr(item, "__dict__", {}).values(), *slots]


def _names(code: types.CodeType) -> list[str]:
    inner = [c for c in code.co_consts if isinstance(c, types.CodeType)]
    return [*code.co_names, *(name for each in inner for name in _names(each))]
