"""Models that only look robust, to see the rules at work."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_jsigr.attacks import FGSM
from keras_jsigr.core import settings
from keras_jsigr.core.inputs import input_specs, probe_batch
from keras_jsigr.core.logits import as_logits

Callback = Callable[[Any], tf.Tensor]


def temperature_scaled(model: keras.Model, factor: float = 1000.0) -> Callback:
    """Multiply the logits: the same decisions, but cross entropy is saturated.

    What defensive distillation does: trained at temperature `T` and used at one, a
    network has logits `T` times as large, and gradients that vanish.

    Args:
        model: A built Keras classifier of one input.
        factor: What the logits are multiplied by, > 0.

    Returns:
        A function from inputs to logits `(B, C)`.

    Reference:
        arXiv 1511.04508 (the defense), arXiv 1607.04311 (why it is none).

    Example:
        >>> import keras, numpy as np
        >>> from keras_jsigr.evaluation.masking import demonstrators
        >>> net = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
        >>> masked, x = demonstrators.temperature_scaled(net), np.ones((1, 2))
        >>> bool(np.allclose(masked(x), 1000.0 * net(x)))
        True
    """
    factor = settings.number("factor", factor, minimum=0.0, above=True)
    logits_fn = _logits(model)
    return lambda x: factor * logits_fn(x)


def quantized_inputs(
    model: keras.Model,
    levels: int = 4,
    input_range: tuple[float, float] = (0.0, 1.0),
) -> Callback:
    """Round the inputs to a few levels: there is no gradient to follow.

    Args:
        model: A built Keras classifier of one input.
        levels: Number of values an input is rounded to, >= 2.
        input_range: `(low, high)`, the first and the last level.

    Returns:
        A function from inputs to logits `(B, C)`.

    Reference:
        arXiv 1711.00117 (such a defense), arXiv 1802.00420 (why it is none).

    Example:
        >>> import keras, numpy as np
        >>> from keras_jsigr.evaluation.masking import demonstrators
        >>> net = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
        >>> masked = demonstrators.quantized_inputs(net, levels=2)
        >>> x = np.array([[0.4, 0.6]], "float32")
        >>> bool(np.allclose(masked(x), net(np.round(x))))
        True
    """
    levels = settings.count("levels", levels, minimum=2)
    low, high = settings.interval("input_range", input_range)
    width, logits_fn = (high - low) / (levels - 1), _logits(model)

    def rounded(x: Any) -> tf.Tensor:
        return logits_fn(
            low + width * tf.round((tf.convert_to_tensor(x) - low) / width)
        )

    return rounded


def randomized(model: keras.Model, stddev: float = 0.1) -> Callback:
    """Add Gaussian noise to the inputs at every call: the outputs are random.

    Args:
        model: A built Keras classifier of one input.
        stddev: Of the noise, in input units, > 0.

    Returns:
        A function from inputs to logits `(B, C)`.

    Reference:
        arXiv 1711.01991 (such a defense), arXiv 1802.00420 (why it is none).

    Example:
        >>> import keras, numpy as np
        >>> from keras_jsigr.evaluation.masking import demonstrators
        >>> net = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
        >>> masked, x = demonstrators.randomized(net), np.ones((1, 2), "float32")
        >>> bool(np.allclose(masked(x), masked(x)))
        False
    """
    stddev = settings.number("stddev", stddev, minimum=0.0, above=True)
    logits_fn = _logits(model)

    def noisy(x: Any) -> tf.Tensor:
        x = tf.convert_to_tensor(x)
        return logits_fn(
            x + tf.random.normal(tf.shape(x), stddev=stddev, dtype=x.dtype)
        )

    return noisy


def train_single_step(
    model: keras.Model,
    x: Any,
    y: Any,
    *,
    epsilon: float,
    epochs: int = 12,
    batch_size: int = 128,
    learning_rate: float = 2e-3,
    input_range: tuple[float, float] = (0.0, 1.0),
    seed: int = 0,
) -> keras.Model:
    """Train on single-step adversarial examples without a random start.

    The recipe for catastrophic overfitting: the network bends its gradients so that the
    single step misses, and many steps find it as fragile as before.

    Args:
        model: A built Keras classifier of one input; trained in place by Adam.
        x: Float `(N, *S)` in `input_range`.
        y: Class indices `(N,)`.
        epsilon: Radius in input units, > 0. The larger, the sooner it happens.
        epochs: Passes over the data.
        batch_size: Examples per training step.
        learning_rate: Of Adam.
        input_range: `(low, high)` of valid inputs.
        seed: Of the order of the examples.

    Returns:
        `model`.

    Reference:
        arXiv 2001.03994, arXiv 2007.02617 (catastrophic overfitting).

    Example:
        >>> import keras, numpy as np
        >>> from keras_jsigr.evaluation.masking import demonstrators
        >>> net = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
        >>> x, y = np.ones((4, 2), "float32"), np.zeros(4, int)
        >>> demonstrators.train_single_step(net, x, y, epsilon=0.1, epochs=1) is net
        True
    """
    # Importing the package imports this module's parents first.
    from keras_jsigr.harden import harden

    epsilon = settings.number("epsilon", epsilon, minimum=0.0, above=True)
    adversary = FGSM(epsilon=epsilon, input_range=input_range, random_start=False)
    robust = harden(
        model,
        jacobian_weight=0.0,
        selective_weight=0.0,
        input_range=input_range,
        adversary=adversary,
        seed=seed,
        verbose=0,
    )
    linear = robust.head.kind == "linear"
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=linear)
    robust.compile(keras.optimizers.Adam(learning_rate), loss)
    order = np.random.default_rng(seed)
    for _ in range(epochs):
        rows = order.permutation(len(x))
        robust.fit(x[rows], y[rows], batch_size=batch_size, shuffle=False, verbose=0)
    return model


def _logits(model: keras.Model) -> Callback:
    return as_logits(model, probe_batch(input_specs(model)))
