"""A public function of TensorFlow, exchanged for a better one inside blocks."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import keras
import tensorflow as tf


class Exchanged:
    """Make blocks in which a function of a module is another one."""

    def __init__(
        self,
        module: Any,
        name: str,
        replacement: Callable[[Callable[..., Any]], Callable[..., Any]],
    ) -> None:
        self._module, self._name, self._replacement = module, name, replacement
        self._lock, self._depth = threading.RLock(), 0
        self._original: Any = None

    @contextmanager
    def block(self) -> Iterator[None]:
        """Exchange the function inside the block."""
        with self._lock:
            if self._depth == 0:
                self._original = getattr(self._module, self._name)
                setattr(self._module, self._name, self._replacement(self._original))
            self._depth += 1
        try:
            yield
        finally:
            with self._lock:
                self._depth -= 1
                if self._depth == 0:
                    setattr(self._module, self._name, self._original)


def moments(
    x: Any,
    axes: int | Sequence[int],
    shift: Any = None,
    keepdims: bool = False,
    name: str | None = None,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Compute mean and variance with every derivative intact."""
    del shift
    with tf.name_scope(name or "moments"):
        x = tf.convert_to_tensor(x)
        wide = tf.cast(x, tf.float32) if x.dtype == tf.float16 else x
        mean = tf.reduce_mean(wide, axes, keepdims=True)
        variance = tf.reduce_mean(tf.square(wide - mean), axes, keepdims=True)
        if not keepdims:
            mean, variance = tf.squeeze(mean, axes), tf.squeeze(variance, axes)
        return tf.cast(mean, x.dtype), tf.cast(variance, x.dtype)


def exact_moments() -> AbstractContextManager[None]:
    """Let `tf.nn.moments` carry exact second derivatives inside the block."""
    return _EXACT.block()


_EXACT = Exchanged(tf.nn, "moments", lambda _: moments)


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


def compiled_losses(model: keras.Model) -> list[Any]:
    """List the losses `model` was compiled with, as the user wrote them."""
    return [loss for loss in keras.tree.flatten(getattr(model, "loss", None)) if loss]


_LOCK = threading.RLock()


# Takes the layer, its own `call`, and the arguments of this call.
Hook = Callable[..., Any]


@contextmanager
def layer_calls(layers: Iterable[keras.Layer], hook: Hook) -> Iterator[None]:
    """Let `hook` stand in for the calls of the layers inside the block."""
    with _LOCK:
        # Most layers have no `call` of their own but that of their class.
        before = [(layer, vars(layer).get("call")) for layer in layers]
        for layer, _ in before:
            # Past Keras, which would track what is assigned.
            object.__setattr__(layer, "call", _hooked(layer, hook))
        try:
            yield
        finally:
            for layer, own in before:
                if own is not None:
                    object.__setattr__(layer, "call", own)
                elif "call" in vars(layer):
                    object.__delattr__(layer, "call")


def only_call(number: int, hook: Hook) -> Hook:
    """Limit a hook of one layer to one of its calls, for one run of the model."""
    numbers = itertools.count()

    def limited(layer: keras.Layer, call: Any, *args: Any, **kwargs: Any) -> Any:
        if next(numbers) == number:
            return hook(layer, call, *args, **kwargs)
        return call(*args, **kwargs)

    return limited


def _hooked(layer: keras.Layer, hook: Hook) -> Callable[..., Any]:
    call = layer.call

    def hooked(*args: Any, **kwargs: Any) -> Any:
        return hook(layer, call, *args, **kwargs)

    return hooked


@contextmanager
def uncompiled(model: keras.Model) -> Iterator[None]:
    """Keep Keras from serializing losses inside the block: they may not be loadable."""
    compiled = [m for m in all_layers(model) if getattr(m, "compiled", False)]
    try:
        for each in compiled:
            each.compiled = False
        yield
    finally:
        for each in compiled:
            each.compiled = True
