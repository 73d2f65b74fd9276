"""The model inside a hardened one."""

from __future__ import annotations

from typing import Any

from keras_jsigr.core.heads import Head


def unwrapped(model: Any) -> Any:
    """Return the base of a hardened model, and anything else as it is.

    Other models may call a part of theirs `base`, as those on a pretrained backbone do:
    what tells a hardened one is its `Head`.

    Args:
        model: A Keras classifier, a hardened model or a callable.

    Returns:
        What was hardened, or `model`.

    Example:
        >>> import keras
        >>> import keras_jsigr as kj
        >>> from keras_jsigr.core.unwrapped import unwrapped
        >>> net = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
        >>> unwrapped(kj.harden(net)) is net, unwrapped(net) is net
        (True, True)
    """
    return model.base if isinstance(getattr(model, "head", None), Head) else model
