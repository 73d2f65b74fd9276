"""Tell in time when a penalty does nothing, or nothing else counts any more."""

from __future__ import annotations

import math
import warnings
from typing import Any

import keras
import tensorflow as tf

from keras_jsigr.callbacks.epoch_measurement import EpochMeasurement
from keras_jsigr.callbacks.penalty.advice import advice
from keras_jsigr.callbacks.penalty.gradient_norms import (
    Norms,
    gradient_norms_of,
    gradient_shares,
)
from keras_jsigr.callbacks.penalty.loss_shares import (
    effective_weights,
    penalty_weights,
    ramp,
    shares_of_epoch,
)
from keras_jsigr.callbacks.penalty.score_advice import score_advice
from keras_jsigr.checks.compile_check import is_cross_entropy
from keras_jsigr.model import JSIGRModel


class PenaltyMonitor(EpochMeasurement):
    """Report what part of loss and gradient each penalty is, and warn in words.

    Added to the logs, beside `task_loss` and `<name>_penalty` of the model itself:

    - `<name>_loss_share`: `w_k R_k / loss`, from the means of the epoch;
    - `<name>_gradient_share` and `task_gradient_share`:
      `w_k ||g_k|| / sum_j w_j ||g_j||` with the gradients of the parts by the weights
      of the model, on fixed examples.

    A large penalty with a small gradient does nothing; that is why gradients decide if
    there are examples. Once the penalties have grown in, there is one `UserWarning`
    when a penalty has a share below 0.001, one when together they have more than 0.9,
    and one when the cross entropy is below 0.05 where the penalties take the gradient
    of the log probability, which vanishes with it. All name the setting to change.
    Without examples nothing is said of a penalty whose maps are drawn anew in every
    step: the mean of few draws may be next to zero by chance.

    Args:
        x: Some training inputs as `fit` receives them, one batch (128 are enough), or
            `None` for the shares of the loss alone.
        y: Their labels.
        every: Number of epochs between measurements, >= 1; in between the last figures
            are repeated.

    Raises:
        ValueError: If only one of `x` and `y` is given or `every` is out of range; at
            the start of training, if the model is not a hardened one.

    Example:
        >>> import keras, numpy as np
        >>> import keras_jsigr as kj
        >>> x, y = np.random.rand(32, 4).astype("float32"), np.arange(32) % 3
        >>> net = keras.Sequential(
        ...     [keras.Input((4,)), keras.layers.Dense(3, activation="softmax")]
        ... )
        >>> robust = kj.harden(net, verbose=0)
        >>> robust.compile("adam", "sparse_categorical_crossentropy")
        >>> monitor = kj.callbacks.PenaltyMonitor(x, y)
        >>> history = robust.fit(x, y, callbacks=[monitor], verbose=0).history
        >>> sorted(name for name in history if name.endswith("gradient_share"))
        ['jacobian_gradient_share', 'selective_gradient_share', 'task_gradient_share']
    """

    def __init__(self, x: Any = None, y: Any = None, *, every: int = 1) -> None:
        super().__init__(every)
        if (x is None) != (y is None):
            raise ValueError(
                "PenaltyMonitor needs inputs and labels, or neither: got "
                f"{'`y`' if x is None else '`x`'} alone. Pass x[:128], y[:128]."
            )
        self.x = x
        self.y = y
        self._norms: Norms | None = None
        self._watched: Any = None
        self._said: set[str] = set()

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Refuse a model without penalties."""
        super().on_train_begin(logs)
        if not isinstance(self.model, JSIGRModel):
            raise ValueError(
                f"PenaltyMonitor needs a hardened model: got "
                f"{type(self.model).__name__}. Wrap it with keras_jsigr.harden."
            )
        if self._watched is not self.model:
            self._watched, self._said = self.model, set()
        # Anew: since the last training layers may be frozen, or the loss another.
        self._norms = None if self.x is None else gradient_norms_of(self.model)

    def measure(self, logs: dict[str, Any]) -> dict[str, float]:
        """Compute the shares with the present weights, and warn."""
        shares, of = shares_of_epoch(self.model, logs), "loss"
        report = {f"{name}_loss_share": share for name, share in shares.items()}
        shares["task"] = 1.0 - sum(shares.values())
        if self._norms is not None:
            x, y = (
                keras.tree.map_structure(tf.convert_to_tensor, part)
                for part in (self.x, self.y)
            )
            norms = self._norms(x, y, tf.constant([self.model.settings.seed, 0]))
            weights = effective_weights(self.model)
            shares, of = gradient_shares(norms, weights), "gradient"
            report |= {f"{name}_gradient_share": v for name, v in shares.items()}
        if ramp(self.model) == 1.0:
            # Another loss may be small where nothing is learnt by heart.
            known = is_cross_entropy(self.model)
            loss = logs.get("task_loss", math.inf) if known else math.inf
            # Shares say little then: the loss is small, not drowned.
            weights = penalty_weights(self.model)
            by_heart = score_advice(self.model.settings, weights, loss)
            if of == "loss" and _draws_maps(self.model):
                # A mean of few draws may be small, or below zero, and tells nothing.
                drawn = ("selective", "fused")
                shares = {k: v for k, v in shares.items() if k not in drawn}
            self._warn(by_heart or advice(shares, weights, of))
        return report

    def _warn(self, found: dict[str, str]) -> None:
        for kind, text in found.items():
            if kind not in self._said:
                self._said.add(kind)
                warnings.warn(text, UserWarning, stacklevel=2)


def _draws_maps(model: JSIGRModel) -> bool:
    """Tell whether the maps are estimates from a few occlusions per step."""
    drawn = model.settings.masks_per_step is not None and model.map_table is None
    return drawn and model.settings.uses_map
