"""Models without their compile state, for as long as they are written or copied."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import keras

from keras_jsigr.core.keras_private import all_layers


@contextmanager
def not_compiled(model: keras.Model) -> Iterator[None]:
    """Keep Keras from serializing losses inside the block: they may not be loadable.

    Args:
        model: Any Keras model; the models inside it are meant too.

    Yields:
        Nothing.

    Example:
        >>> import keras
        >>> from keras_jsigr.core.not_compiled import not_compiled
        >>> net = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        >>> net.compile(loss="mse")
        >>> with not_compiled(net):
        ...     inside = net.compiled
        >>> inside, net.compiled
        (False, True)
    """
    compiled = [m for m in all_layers(model) if getattr(m, "compiled", False)]
    try:
        for each in compiled:
            each.compiled = False
        yield
    finally:
        for each in compiled:
            each.compiled = True
