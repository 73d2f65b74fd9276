"""Telling probabilities from logits by their values."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import keras
import numpy as np
import tensorflow as tf

# Farther and farther from the data, on both sides.
_SCALES = (10.0, -10.0, 1e2, -1e2, 1e3, -1e3, 1e4, -1e4)


def looks_like_probabilities(outputs: Any) -> bool:
    """Tell whether rows `(B, C)` with `C > 1` are non-negative and sum to one.

    Args:
        outputs: Float `(B, C)`, any float dtype.

    Returns:
        True if every row is a distribution to 1e-4, or 1e-2 in half precision; rows
        with NaN, of which there may be some but not all, tell nothing.

    Example:
        >>> import numpy as np
        >>> from keras_jsigr.core.probabilities import looks_like_probabilities
        >>> looks_like_probabilities(np.array([[0.25, 0.75]]))
        True
    """
    outputs = tf.convert_to_tensor(outputs)
    half = outputs.dtype in (tf.float16, tf.bfloat16)
    p = np.asarray(tf.cast(outputs, tf.float32))
    if p.ndim != 2 or p.shape[1] < 2:
        return False
    p = p[~np.isnan(p).any(axis=1)]
    return bool(
        len(p) > 0
        and np.all(p >= 0.0)
        and np.allclose(p.sum(-1), 1.0, rtol=0.0, atol=1e-2 if half else 1e-4)
    )


def saturates(model: Callable[..., Any], probe: Any, outputs: Any) -> bool:
    """Tell whether a single output goes from zero to one and never beyond.

    One number between zero and one may well be a logit. Far outside of the data, logits
    leave that interval, and probabilities reach its ends.

    Args:
        model: A function of inputs, such as a Keras model in inference mode.
        probe: A batch of inputs as `model` takes them.
        outputs: What it returns for them, `(B, C)`.

    Returns:
        True if so; False for several outputs.

    Example:
        >>> import keras, numpy as np
        >>> from keras_jsigr.core.probabilities import saturates
        >>> inputs = keras.Input((2,))
        >>> logits = keras.layers.Dense(1, kernel_initializer="ones")(inputs)
        >>> x = np.array([[0.1, 0.3]], "float32")
        >>> nets = [
        ...     keras.Model(inputs, out) for out in (logits, keras.ops.sigmoid(logits))
        ... ]
        >>> [saturates(net, x, net(x)) for net in nets]
        [False, True]
    """
    if outputs.shape[1] != 1 or not _in_unit_interval(outputs):
        return False
    seen = []
    for scale in _SCALES:
        far = keras.tree.map_structure(partial(_scaled, scale), probe)
        seen.append(np.asarray(tf.cast(model(far), tf.float32)))
    found = np.concatenate(seen)
    return bool(_in_unit_interval(found) and found.min() < 0.01 and found.max() > 0.99)


def _scaled(scale: float, leaf: Any) -> Any:
    leaf = tf.convert_to_tensor(leaf)
    return leaf * tf.cast(scale, leaf.dtype) if leaf.dtype.is_floating else leaf


def _in_unit_interval(outputs: Any) -> bool:
    values = np.asarray(tf.cast(outputs, tf.float32))
    return bool(np.all((values >= 0.0) & (values <= 1.0)))
