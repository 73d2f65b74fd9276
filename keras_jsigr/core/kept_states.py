"""A pass beside the training step leaves the states of recurrent layers alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
import tensorflow as tf

from keras_jsigr.core.keras_private import all_layers


def states_of(model: keras.Model) -> list[Any]:
    """List the variables in which recurrent layers with `stateful=True` go on.

    Args:
        model: A built Keras model.

    Returns:
        Keras variables, each once.

    Example:
        >>> import keras
        >>> from keras_jsigr.core.kept_states import states_of
        >>> x = keras.Input(batch_shape=(4, 3, 2))
        >>> net = keras.Model(x, keras.layers.LSTM(5, stateful=True)(x))
        >>> [tuple(state.shape) for state in states_of(net)]
        [(4, 5), (4, 5)]
    """
    stateful = [each for each in all_layers(model) if getattr(each, "stateful", False)]
    states = keras.tree.flatten([getattr(each, "states", None) for each in stateful])
    return list({id(s): s for s in states if isinstance(s, keras.Variable)}.values())


@contextmanager
def kept(states: list[Any]) -> Iterator[None]:
    """Put variables back after the block, in a graph too.

    Args:
        states: Keras variables.

    Yields:
        Nothing.

    Example:
        >>> import keras
        >>> from keras_jsigr.core.kept_states import kept
        >>> state = keras.Variable([0.0])
        >>> with kept([state]):
        ...     _ = state.assign([1.0])
        >>> state.numpy().tolist()
        [0.0]
    """
    before = [tf.identity(state.value) for state in states]
    try:
        yield
    finally:
        for state, value in zip(states, before, strict=True):
            state.assign(value)
