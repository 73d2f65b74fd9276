"""Where the package reaches into Keras and TensorFlow, each with its reason.

Wrapped once, at import: `keras.Operation.__call__` and `keras.Layer.__call__`, to see
and exchange what layers do, and `tf.nn.moments`, whose second derivatives are wrong.
Blocks act by context variables, on their own thread; nothing is written to layers.
Private names are read where Keras has no public way to list all layers of a model or
the seeds of its random layers, or to keep a Functional model from casting inputs.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any

import keras
import tensorflow as tf

# Takes the layer, what it would do itself, and the arguments of this call.
Hook = Callable[..., Any]
# By the id of the layer; a block holds its layers, so that no id is used again.
_NONE: Mapping[int, Any] = MappingProxyType({})
_HOOKS: ContextVar[Mapping[int, tuple[Hook, ...]]] = ContextVar("hooks", default=_NONE)
_STAND_INS: ContextVar[Mapping[int, Any]] = ContextVar("stand_ins", default=_NONE)
_EXACT: ContextVar[bool] = ContextVar("exact_moments", default=False)
_ORIGINAL = "_original_of_a_stand_in"
# The newest releases that the tests ran with.
TESTED = {"tensorflow": (2, 21), "keras": (3, 15)}


def untested_versions(installed: Mapping[str, str] | None = None) -> str:
    """Name releases newer than those that the tests ran with; empty if there are none."""
    installed = installed or {"tensorflow": tf.__version__, "keras": keras.__version__}
    newer = [
        f"{name} {version} (tested: up to {'.'.join(map(str, TESTED[name]))})"
        for name, version in installed.items()
        if tuple(int(part) for part in version.split(".")[:2]) > TESTED[name]
    ]
    hint = "If something fails that worked before, install the tested one and report it."
    return f"keras_jsigr was not tested with {' and '.join(newer)}. {hint}" if newer else ""


@contextmanager
def _set(variable: ContextVar[Any], value: Any) -> Iterator[None]:
    token = variable.set(value)
    try:
        yield
    finally:
        variable.reset(token)


@contextmanager
def layer_calls(layers: Iterable[keras.Layer], hook: Hook) -> Iterator[None]:
    """Let `hook(layer, call, *args)` answer for layers; outer hooks are in `call`."""
    held = list({id(layer): layer for layer in layers}.values())
    before = _HOOKS.get()
    added = {id(layer): (*before.get(id(layer), ()), hook) for layer in held}
    with _set(_HOOKS, {**before, **added}):
        yield


def only_call(number: int, hook: Hook) -> Hook:
    """Limit a hook of one layer to one of its calls, for one run of the model."""
    numbers = itertools.count()

    def limited(layer: keras.Layer, call: Any, *args: Any, **kwargs: Any) -> Any:
        if next(numbers) == number:
            return hook(layer, call, *args, **kwargs)
        return call(*args, **kwargs)

    return limited


@contextmanager
def altered_layers(
    layers: Iterable[keras.Layer], attributes: Callable[[keras.Layer], dict[str, Any]]
) -> Iterator[None]:
    """Let copies of layers, with other attributes, answer for them in this thread."""
    before = _STAND_INS.get()
    held = list({id(layer): layer for layer in layers}.values())
    copies = {id(layer): _shallow_copy(before.get(id(layer), layer)) for layer in held}
    for layer in held:
        copy = copies[id(layer)]
        for name, value in vars(copy).items():
            # What a layer calls past `__call__`, as `TimeDistributed` does.
            if isinstance(value, keras.Layer) and name != _ORIGINAL:
                vars(copy)[name] = copies.get(id(value), value)
        vars(copy).update(attributes(layer))
    with _set(_STAND_INS, {**before, **copies}):
        yield


def _shallow_copy(layer: keras.Layer) -> keras.Layer:
    # `copy.copy` would serialize the layer; assignment would track what is assigned.
    copy = object.__new__(type(layer))
    vars(copy).update(vars(layer))
    vars(copy).setdefault(_ORIGINAL, layer)
    return copy


def _wrap_layers(call: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(call)
    def called(self: Any, *args: Any, **kwargs: Any) -> Any:
        return call(_STAND_INS.get().get(id(self), self), *args, **kwargs)

    return called


def _wrap_operations(call: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(call)
    def called(self: Any, *args: Any, **kwargs: Any) -> Any:
        hooks = _HOOKS.get()
        if not hooks:
            return call(self, *args, **kwargs)
        layer = vars(self).get(_ORIGINAL, self)
        answer = functools.partial(call, self)
        for hook in hooks.get(id(layer), ()):
            answer = functools.partial(hook, layer, answer)
        return answer(*args, **kwargs)

    return called


@contextmanager
def exact_moments() -> Iterator[None]:
    """Let `tf.nn.moments`, by which Keras normalizes, be twice differentiable here."""
    with _set(_EXACT, True):
        yield


def moments(
    x: Any,
    axes: int | Sequence[int],
    shift: Any = None,
    keepdims: bool = False,
    name: str | None = None,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Compute mean and variance; `tf.nn.moments` stops a gradient between them."""
    del shift  # ignored by TensorFlow too
    with tf.name_scope(name or "moments"):
        x = tf.convert_to_tensor(x)
        wide = tf.cast(x, tf.float32) if x.dtype == tf.float16 else x
        mean = tf.reduce_mean(wide, axes, keepdims=True)
        variance = tf.reduce_mean(tf.square(wide - mean), axes, keepdims=True)
        if not keepdims:
            mean, variance = tf.squeeze(mean, axes), tf.squeeze(variance, axes)
        return tf.cast(mean, x.dtype), tf.cast(variance, x.dtype)


def _wrap_moments(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def either(*args: Any, **kwargs: Any) -> Any:
        return (moments if _EXACT.get() else original)(*args, **kwargs)

    return either


def _install(
    owner: Any, name: str, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]
) -> None:
    """Put a wrapper in its place, unless this package has put one there before."""
    function = getattr(owner, name)
    if not hasattr(function, "_wrapped_by_keras_jsigr"):
        wrapper = wrap(function)
        wrapper._wrapped_by_keras_jsigr = True  # type: ignore[attr-defined]
        setattr(owner, name, wrapper)


_install(keras.Operation, "__call__", _wrap_operations)
_install(keras.Layer, "__call__", _wrap_layers)
_install(tf.nn, "moments", _wrap_moments)


def all_layers(model: keras.Layer) -> list[keras.Layer]:
    """List a model or layer and all layers it holds, parents first."""
    layers = model._flatten_layers(include_self=True, recursive=True)
    return list({id(layer): layer for layer in layers}.values())


def leaf_layers(model: keras.Model) -> list[keras.Layer]:
    """List the layers of `model` that hold no other layers, in order of creation."""
    leaves: list[keras.Layer] = []
    seen: set[int] = set()
    for layer in model._flatten_layers(include_self=False, recursive=True):
        inner = list(layer._flatten_layers(include_self=False, recursive=False))
        if inner or id(layer) in seen or isinstance(layer, keras.layers.InputLayer):
            continue
        seen.add(id(layer))
        leaves.append(layer)
    return leaves


def with_functional_parts(layers: list[keras.Layer]) -> list[keras.Layer]:
    """Add the Functional models by which Sequential models run, which are no layers."""
    parts = [getattr(layer, "_functional", None) for layer in layers]
    return [*layers, *(part for part in parts if part is not None)]


def without_input_casts(layer: keras.Layer) -> dict[str, Any]:
    """Return attributes by which a model leaves the dtype of its inputs alone."""
    if not isinstance(layer, keras.Model):
        return {}
    as_tensors = {"_convert_inputs_to_tensors": lambda x: [*map(tf.convert_to_tensor, x)]}
    functional = hasattr(layer, "_convert_inputs_to_tensors")
    return {"_convert_input_args": False, **(as_tensors if functional else {})}


def seed_states(model: keras.Model) -> list[keras.Variable]:
    """List the variables that the seeds of a model's random layers are held in."""
    generators = [
        generator
        for layer in all_layers(model)
        for generator in getattr(layer, "_seed_generators", ())
    ]
    return list({id(each.state): each.state for each in generators}.values())


def compiled_losses(model: keras.Model) -> list[Any]:
    """List the losses `model` was compiled with, as the user wrote them."""
    return [loss for loss in keras.tree.flatten(getattr(model, "loss", None)) if loss]


def uncompiled(model: keras.Model) -> keras.Model:
    """Return an uncompiled copy with the same layers: Keras may fail to copy losses."""
    view: keras.Model = object.__new__(type(model))
    view.__dict__.update(vars(model))
    view.__dict__["compiled"] = False
    return view
