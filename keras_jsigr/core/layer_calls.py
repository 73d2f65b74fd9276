"""See and exchange what layers of a model do while it runs."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import keras

_LOCK = threading.RLock()

# Takes the layer, its own `call`, and the arguments of this call.
Hook = Callable[..., Any]


@contextmanager
def layer_calls(layers: Iterable[keras.Layer], hook: Hook) -> Iterator[None]:
    """Let `hook` stand in for the calls of the layers inside the block.

    It works for Functional, Sequential and subclassed models and for layers of models
    within models alike. Blocks nest: the inner hook is given the outer one as `call`.
    Only one thread is inside a block at a time.

    Args:
        layers: Layers of the model that is run inside the block.
        hook: Called as `hook(layer, call, *args, **kwargs)`, where `call` is what the
            layer would do; returns the outputs to go on with.

    Yields:
        Nothing.

    Example:
        >>> import keras, numpy as np
        >>> from keras_jsigr.core.layer_calls import layer_calls
        >>> layer = keras.layers.Activation("relu")
        >>> net = keras.Sequential([keras.Input((1,)), layer])
        >>> with layer_calls([layer], lambda layer, call, x, **_: 2.0 * call(x)):
        ...     twice = net(np.ones((1, 1)))
        >>> float(twice[0, 0]), float(net(np.ones((1, 1)))[0, 0])
        (2.0, 1.0)
    """
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
    """Limit a hook of one layer to one of its calls, for one run of the model.

    Args:
        number: Of the call, from 0.
        hook: See `layer_calls`.

    Returns:
        A hook that leaves the other calls as they are.

    Example:
        >>> import keras, numpy as np
        >>> from keras_jsigr.core.layer_calls import layer_calls, only_call
        >>> layer, x = keras.layers.Activation("relu"), np.ones((1, 1))
        >>> hook = only_call(1, lambda layer, call, x: 2.0 * call(x))
        >>> with layer_calls([layer], hook):
        ...     [float(layer(x)[0, 0]) for _ in range(3)]
        [1.0, 2.0, 1.0]
    """
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
