"""How hard the task loss and each penalty pull at the weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from keras_jsigr.core.inputs import unchanged_state
from keras_jsigr.model import JSIGRModel

# Training weighs the penalties, which keeps them within float16 at the loss scale; at
# weight one they may need less of it.
_SCALES = (1.0, 2.0**-6, 2.0**-12)
Norms = Callable[[Any, Any, Any], dict[str, float]]


def gradient_norms(
    model: JSIGRModel, x: Any, y: Any, seed: Any, scale: Any = 1.0
) -> dict[str, Any]:
    """Compute the norms of the gradients of the parts of the loss.

    `||d task / d theta||_2` and `||d R_k / d theta||_2` over all trainable weights, the
    penalties at weight one, at the point and in the training mode of a training step.

    Args:
        model: A compiled hardened model.
        x: Inputs as a training step receives them, tensors.
        y: Labels, a tensor.
        seed: Int32 `(2,)` of the random projections and masks.
        scale: Part of the optimizer's loss scale to use.

    Returns:
        Float32 scalars by the names `task`, `jacobian`, `selective`, `align` or
        `fused`, as far as the model has the terms; all in units of the loss scale.

    Example:
        See `gradient_norms_of`.
    """
    variables = model.trainable_variables
    with model.recorded_loss(x, y, None, seed, persistent=True) as (tape, found):
        parts = {"task": tf.cast(found.task, tf.float32), **found.penalties}
        # Half precision: a scaled loss keeps small gradients, and shares do not change.
        scaled = {
            name: scale * model.optimizer.scale_loss(part)
            for name, part in parts.items()
        }
    return {
        name: tf.linalg.global_norm(
            [
                tf.cast(tf.convert_to_tensor(gradient), tf.float32)
                for gradient in tape.gradient(part, variables)
                if gradient is not None
            ]
        )
        for name, part in scaled.items()
    }


def gradient_norms_of(model: JSIGRModel) -> Norms:
    """Compile `gradient_norms` for a model, to call it again and again.

    Every call has to be for examples of the same shapes as the first. The statistics
    and random states that a pass in training mode moves are put back.

    Args:
        model: A compiled hardened model.

    Returns:
        A function of `x`, `y` and `seed` to Python floats.

    Example:
        >>> import keras, tensorflow as tf
        >>> import keras_jsigr as kj
        >>> from keras_jsigr.callbacks.penalty.gradient_norms import gradient_norms_of
        >>> net = keras.Sequential(
        ...     [keras.Input((4,)), keras.layers.Dense(3, activation="softmax")]
        ... )
        >>> robust = kj.harden(net, verbose=0)
        >>> robust.compile("sgd", "sparse_categorical_crossentropy")
        >>> norms = gradient_norms_of(robust)
        >>> sorted(norms(tf.ones((2, 4)), tf.constant([0, 1]), tf.constant([0, 0])))
        ['jacobian', 'selective', 'task']
    """

    def traced(x: Any, y: Any, seed: Any, scale: Any) -> dict[str, Any]:
        return gradient_norms(model, x, y, seed, scale)

    compiled: list[Any] = []

    def norms(x: Any, y: Any, seed: Any) -> dict[str, float]:
        found: dict[str, float] = {}
        for scale in map(tf.constant, _SCALES):
            with unchanged_state(model):
                if not compiled:
                    function = tf.function(traced, autograph=False)
                    compiled.append(function.get_concrete_function(x, y, seed, scale))
                values = compiled[0](x, y, seed, scale)
            found = {name: float(value) for name, value in values.items()}
            if all(map(math.isfinite, found.values())):
                break
        return found

    return norms


def gradient_shares(
    norms: Mapping[str, float], weights: Mapping[str, float]
) -> dict[str, float]:
    """Compute the share of the task and of each weighted penalty in the pull.

    `w_k ||g_k|| / sum_j w_j ||g_j||` with weight one for the task.

    Args:
        norms: From `gradient_norms`.
        weights: Effective weights of the penalties by name.

    Returns:
        Shares that sum to one, or zeros if all norms are.

    Example:
        >>> from keras_jsigr.callbacks.penalty.gradient_norms import gradient_shares
        >>> gradient_shares({"task": 1.0, "jacobian": 6.0}, {"jacobian": 0.5})
        {'task': 0.25, 'jacobian': 0.75}
    """
    pulls = {name: norm * weights.get(name, 1.0) for name, norm in norms.items()}
    total = sum(pulls.values())
    return {name: pull / total if total else 0.0 for name, pull in pulls.items()}
