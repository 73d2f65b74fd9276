"""Fingerprints of models and data, equal only if the evaluation would be."""

from __future__ import annotations

import hashlib
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_jsigr.attacks.transfer.ensemble import LogitsEnsemble
from keras_jsigr.core.as_float import as_float
from keras_jsigr.core.logits import LogitsFn, as_logits
from keras_jsigr.core.unwrapped import unwrapped
from keras_jsigr.saliency.fingerprint import fingerprint_array, fingerprint_model

_PROBES = 16


def model_identity(model: Any, x: Any) -> str:
    """Hash what a model computes: its weights and its architecture.

    A Keras model gives weights and configuration, without the names of its layers and
    without the compile state. A `LogitsEnsemble` gives those of its members. Any other
    callable gives its logits on the first 16 examples and on noise of their range,
    exactly: some defences do nothing to clean images. All of them give what they answer
    at the examples, and how large the gradients are, to three digits: configurations
    say nothing of what a layer of one's own does, nor answers of its gradient.

    Args:
        model: A Keras classifier, a hardened model or a callable.
        x: Float `(N, *S)`.

    Returns:
        SHA-256, hexadecimal.

    Example:
        >>> import numpy as np
        >>> from keras_jsigr.evaluation.identity import model_identity
        >>> x = np.ones((1, 2), "float32")
        >>> model_identity(lambda x: x, x) == model_identity(lambda x: 2 * x, x)
        False
    """
    if isinstance(model, LogitsEnsemble):
        parts = [type(model).__name__, str(model.weights), model.fuse]
        parts += [model_identity(part, x) for part in model.models]
    else:
        # The penalties of a hardened model and their schedule play no part here.
        model = unwrapped(model)
        probe = tf.convert_to_tensor(x[:_PROBES])
        logits_fn = as_logits(model, probe)
        if isinstance(model, keras.Model):
            parts = [fingerprint_model(model, logits_fn, probe)]
        else:
            seen = (probe, _elsewhere(x))
            parts = [np.asarray(logits_fn(points)).tobytes().hex() for points in seen]
        parts += _behaviour(logits_fn, probe)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def data_identity(x: Any, y: Any) -> str:
    """Hash examples and labels.

    Args:
        x: `(N, *S)`.
        y: `(N,)`.

    Returns:
        SHA-256, hexadecimal.

    Example:
        >>> import numpy as np
        >>> from keras_jsigr.evaluation.identity import data_identity
        >>> x = np.ones((2, 2))
        >>> data_identity(x, [0, 1]) == data_identity(x, [1, 0])
        False
    """
    parts = fingerprint_array(x) + fingerprint_array(y)
    return hashlib.sha256(parts.encode()).hexdigest()


def _elsewhere(x: Any) -> tf.Tensor:
    """Draw 16 points between the least and the greatest value of the first examples."""
    few = np.asarray(as_float(x[:_PROBES]))
    drawn = np.random.default_rng(0).uniform(few.min(), few.max(), few.shape)
    return tf.cast(drawn, as_float(x[:1]).dtype)


def _behaviour(logits_fn: LogitsFn, probe: tf.Tensor) -> list[str]:
    """Return the sizes of answers and gradients, one each per example."""
    probe = as_float(probe)
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(probe)
        logits = logits_fn(probe)
        energy = tf.reduce_sum(tf.square(tf.cast(logits, tf.float32)), axis=-1)
    try:
        gradient = tape.gradient(energy, probe)
    except LookupError:  # of an operation that has none
        gradient = None
    # Few numbers and few digits: the last ones differ between machines.
    values = [_digits(energy)]
    if gradient is None:
        return [*values, "no gradient"]
    return [
        *values,
        _digits(tf.reduce_sum(tf.abs(gradient), range(1, probe.shape.rank))),
    ]


def _digits(values: Any) -> str:
    return " ".join(f"{value:.2e}" for value in np.asarray(values, np.float64))
