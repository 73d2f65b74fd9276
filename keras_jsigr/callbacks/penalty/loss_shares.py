"""What part of the training loss each penalty is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras

from keras_jsigr.penalties import ramp_factor
from keras_jsigr.training.scalar import read_scalar


def shares_of_epoch(model: Any, logs: Mapping[str, float]) -> dict[str, float]:
    """Compute the share of each weighted penalty in the loss of an epoch.

    Args:
        model: A compiled `JSIGRModel`.
        logs: Of the epoch; its `penalty_factor` counts before that of the model, which
            by now is that of the next epoch.

    Returns:
        A share for every penalty, see `loss_shares`.

    Example:
        >>> import keras
        >>> import keras_jsigr as kj
        >>> from keras_jsigr.callbacks.penalty.loss_shares import shares_of_epoch
        >>> net = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
        >>> robust = kj.harden(net, jacobian_weight=0.5, ramp_steps=0)
        >>> robust.compile()
        >>> shares_of_epoch(robust, {"task_loss": 3.0, "jacobian_penalty": 2.0})
        {'jacobian': 0.25}
    """
    return loss_shares(logs, effective_weights(model, logs.get("penalty_factor")))


def loss_shares(
    logs: Mapping[str, float], weights: Mapping[str, float]
) -> dict[str, float]:
    """Compute the share of each weighted penalty in the loss.

    `w_k R_k / (task + sum_j w_j R_j)`, from the means that `fit` reports.

    Args:
        logs: With `task_loss` and `<name>_penalty`.
        weights: Effective weight `w_k` by the name of the penalty.

    Returns:
        A share for every penalty that the logs hold; empty without `task_loss`. An
        estimate below zero counts as zero.

    Example:
        >>> from keras_jsigr.callbacks.penalty.loss_shares import loss_shares
        >>> loss_shares({"task_loss": 3.0, "jacobian_penalty": 10.0}, {"jacobian": 0.1})
        {'jacobian': 0.25}
    """
    if "task_loss" not in logs:
        return {}
    parts = {
        name: max(weight * logs[f"{name}_penalty"], 0.0)
        for name, weight in weights.items()
        if f"{name}_penalty" in logs
    }
    total = abs(logs["task_loss"]) + sum(parts.values())
    return {name: part / total if total > 0 else 0.0 for name, part in parts.items()}


def effective_weights(model: Any, factor: float | None = None) -> dict[str, float]:
    """Read the present weights of the penalties of a hardened model.

    Args:
        model: A compiled `JSIGRModel`.
        factor: That of `penalty_weights="auto"`; `None` reads the present one.

    Returns:
        `lambda_J`, `lambda_S`, `lambda_A` by the names of their penalties, and the
        weight of the `fused` penalty, which holds the first two already; all times the
        ramp and the factor of `penalty_weights="auto"`.

    Example:
        >>> import keras
        >>> import keras_jsigr as kj
        >>> from keras_jsigr.callbacks.penalty.loss_shares import effective_weights
        >>> net = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
        >>> robust = kj.harden(net, jacobian_weight=0.5, ramp_steps=0)
        >>> robust.compile()
        >>> effective_weights(robust)["jacobian"]
        0.5
    """
    if factor is None:
        own = model.penalty_factor
        factor = 1.0 if own is None else float(read_scalar(own))
    share = ramp(model) * factor
    return {name: share * weight for name, weight in penalty_weights(model).items()}


def penalty_weights(model: Any) -> dict[str, float]:
    """Read the weights of the penalties of a hardened model as they are set.

    Args:
        model: A `JSIGRModel`.

    Returns:
        As `effective_weights`, without the ramp and the factor.

    Example:
        >>> import keras
        >>> import keras_jsigr as kj
        >>> from keras_jsigr.callbacks.penalty.loss_shares import penalty_weights
        >>> net = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
        >>> penalty_weights(kj.harden(net, jacobian_weight=0.5))["jacobian"]
        0.5
    """
    return {
        "jacobian": read_scalar(model.jacobian_weight),
        "selective": read_scalar(model.selective_weight),
        "align": read_scalar(model.align_weight),
        "fused": 1.0,
    }


def ramp(model: Any) -> float:
    """Read how far the penalties of a hardened model have grown in.

    Args:
        model: A compiled `JSIGRModel`.

    Returns:
        0..1.

    Example:
        >>> import keras
        >>> import keras_jsigr as kj
        >>> from keras_jsigr.callbacks.penalty.loss_shares import ramp
        >>> net = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
        >>> robust = kj.harden(net, ramp_steps=4)
        >>> robust.compile()
        >>> ramp(robust)
        0.25
    """
    steps = (model.optimizer.iterations, model.delay_steps, model.ramp_steps)
    return float(ramp_factor(*(keras.ops.convert_to_numpy(step) for step in steps)))
