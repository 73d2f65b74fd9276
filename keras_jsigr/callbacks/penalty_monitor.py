"""Report the share of each penalty in loss and gradient, and warn in words."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import keras
import tensorflow as tf

from keras_jsigr.callbacks.robust_accuracy import EpochMeasurement, check_arrays
from keras_jsigr.core.keras_compat import exact_moments
from keras_jsigr.core.logits import is_hardened
from keras_jsigr.core.variables import read_scalar, stateless
from keras_jsigr.model import JSIGRModel
from keras_jsigr.penalties.base import Penalty
from keras_jsigr.training.validation import is_cross_entropy

# Below the first share a penalty does nothing; above the second all of them together
# leave too little to the task.
LEAST_SHARE, LARGEST_SHARE = 1e-3, 0.9
# The cross entropy, in nats, below which training images are learned by heart.
LEAST_TASK_LOSS = 0.05
# Training weighs the penalties, which keeps them within float16 at the loss scale; with
# a weight of one they may need a smaller scale.
LOSS_SCALES = (1.0, 2.0**-6, 2.0**-12)
Norms = Callable[[Any, Any, Any], dict[str, float]]


class PenaltyMonitor(EpochMeasurement):
    """Report what part of loss and gradient each penalty is, and warn in words.

    Added to the logs, beside `task_loss` and `<name>_penalty` of the model itself:

    - `<name>_loss_share`: `w_k R_k / loss`, from the means of the epoch;
    - `<name>_gradient_share` and `task_gradient_share`:
      `w_k ||g_k|| / sum_j w_j ||g_j||` with the gradients of the parts by the weights
      of the model, on fixed examples.

    After the warm-up it warns once when a penalty has a share (of the gradient if there
    are examples, else of the loss) below 0.001, when together they have more than 0.9,
    and when the cross entropy is below 0.05 while a penalty uses the gradient of the
    log probability, which vanishes with it. Each warning names the setting to change.

    Args:
        x: Some training inputs as `fit` receives them, one batch (128 are enough), or
            `None` for the shares of the loss alone.
        y: Their labels.
        every: As `RobustAccuracy`.

    Raises:
        ValueError: If only one of `x` and `y` is given or `every` is out of range; at
            the start of training, if the model is not a hardened one.

    Example:
        >>> import keras, numpy as np
        >>> import keras_jsigr as kj
        >>> x, y = np.random.rand(32, 4).astype("float32"), np.arange(32) % 3
        >>> net = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, activation="softmax")])
        >>> robust = kj.harden(net, verbose=0)
        >>> robust.compile("adam", "sparse_categorical_crossentropy")
        >>> monitor = kj.callbacks.PenaltyMonitor(x, y)
        >>> history = robust.fit(x, y, callbacks=[monitor], verbose=0).history
        >>> sorted(name for name in history if name.endswith("gradient_share"))
        ['jacobian_gradient_share', 'selective_gradient_share', 'task_gradient_share']
    """

    def __init__(self, x: Any = None, y: Any = None, *, every: int = 1) -> None:
        super().__init__(every)
        check_arrays("PenaltyMonitor", (x, y))
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
        """Check that the model has penalties, and prepare the measurement."""
        super().on_train_begin(logs)
        if not is_hardened(self.model):
            raise ValueError(
                f"PenaltyMonitor needs a hardened model: got "
                f"{type(self.model).__name__}. Wrap it with keras_jsigr.harden."
            )
        if self._watched is not self.model:
            self._watched, self._said = self.model, set()
        # Compiled for each training: layers may be frozen since, or the loss changed.
        self._norms = None if self.x is None else gradient_norms_of(self.model)

    def measure(self, logs: dict[str, Any]) -> dict[str, float]:
        """Compute the shares with the present weights, and warn."""
        shares, of = shares_of_epoch(self.model, logs), "loss"
        report = {f"{name}_loss_share": share for name, share in shares.items()}
        shares["task"] = 1.0 - sum(shares.values())
        if self._norms is not None:
            x, y = keras.tree.map_structure(tf.convert_to_tensor, (self.x, self.y))
            norms = self._norms(x, y, tf.constant([self.model.seed, 0]))
            shares = gradient_shares(norms, effective_weights(self.model))
            of = "gradient"
            report |= {f"{name}_gradient_share": v for name, v in shares.items()}
        if self.model.warmup_progress() == 1.0:
            for kind, text in self._advice(shares, of, logs).items():
                if kind not in self._said:
                    self._said.add(kind)
                    warnings.warn(text, UserWarning, stacklevel=2)
        return report

    def _advice(
        self, shares: dict[str, float], of: str, logs: Mapping[str, float]
    ) -> dict[str, str]:
        model, weights = self.model, self.model.penalty_weights
        loss = logs.get("task_loss", math.inf)
        # Other losses than the cross entropy may be small before anything is learned.
        if is_cross_entropy(model) and 0.0 <= loss < LEAST_TASK_LOSS:
            found = score_advice(model.penalties, weights, loss)
            if found:
                return found
        if of == "loss" and model.map_table is None and model.config.live_maps.samples:
            # The mean of few draws may be small, or below zero, by chance.
            drawn = {penalty.name for penalty in model.penalties if penalty.needs_map}
            shares = {k: v for k, v in shares.items() if k not in drawn}
        return advice(shares, model.penalties, weights, of)


def advice(
    shares: Mapping[str, float],
    penalties: Iterable[Penalty],
    weights: Mapping[str, float],
    of: str,
) -> dict[str, str]:
    """Say what is wrong with the weights of the penalties, by kinds of advice."""
    by_name = {each.name: each for each in penalties if each.name in shares}
    held = {name: shares[name] for name in by_name}
    found = {
        f"{name} does nothing": _does_nothing(by_name[name], share, weights[name], of)
        for name, share in held.items()
        if share < LEAST_SHARE
    }
    if sum(held.values()) > LARGEST_SHARE:
        largest = by_name[max(held, key=lambda name: held[name])]
        found["too large"] = _too_large(largest, shares, weights[largest.name], of)
    return found


def _does_nothing(penalty: Penalty, share: float, weight: float, of: str) -> str:
    settings = list(penalty.weights())
    start = (
        f"The {penalty.name} penalty does nothing: its share of the {of} is "
        f"{100.0 * share:.2g} %, below {100.0 * LEAST_SHARE:g} %. "
    )
    if share == 0.0 and weight > 0.0:
        return (
            f"{start}No weight can change that: it is zero on these examples. Look for "
            "saturated or dead units, and for layers without a second derivative."
        )
    if penalty.weighs_itself or share == 0.0:
        how = "tenfold" if weight else "above 0"
        remedy = f"Raise {' and '.join(settings)} {how}"
    else:
        wanted = weight * (0.1 / 0.9) * (1.0 - share) / share
        remedy = f"Raise {settings[0]} (now {weight:.2g}) to about {wanted:.2g}"
    off = " and ".join(f"{name}=0" for name in settings)
    return f"{start}{remedy}. Or do without: {off} saves its cost."


def _too_large(penalty: Penalty, shares: Mapping[str, float], weight: float, of: str) -> str:
    share, settings = shares[penalty.name], list(penalty.weights())
    held = 1.0 - shares["task"]
    remedy = f"Lower {' and '.join(settings)}"
    if not penalty.weighs_itself and share > 0.5:
        wanted = weight * (1.0 - share) / share
        remedy += f" (now {weight:.2g}) to about {wanted:.2g}"
    return (
        f"The penalties drown the task loss: they have {100.0 * held:.0f} % of the {of}, the "
        f"{penalty.name} penalty alone {100.0 * share:.0f} %. The model gets flat before it gets "
        f"right. {remedy}, or let the penalties grow in more slowly with `warmup`."
    )


def score_advice(
    penalties: Iterable[Penalty], weights: Mapping[str, float], task_loss: float
) -> dict[str, str]:
    """Say that the gradient of the log probability vanishes at a small task loss."""
    for penalty in penalties:
        takes_score = getattr(penalty, "target", "jacobian") != "jacobian"
        vanishes = getattr(penalty, "class_score", None) == "log_prob"
        if takes_score and vanishes and weights[penalty.name] > 0.0:
            return {
                "learned by heart": (
                    "The model has learned its training images by heart: their mean task loss is "
                    f"{task_loss:.2g}. The gradient of class_score='log_prob' vanishes there, and "
                    f"with it the effect of the {penalty.name} penalty. Train with "
                    "recipe=config.replace(class_score='margin')."
                )
            }
    return {}


def shares_of_epoch(model: JSIGRModel, logs: Mapping[str, float]) -> dict[str, float]:
    """Compute the share of each weighted penalty in the loss of an epoch."""
    return loss_shares(logs, effective_weights(model, logs.get("penalty_factor")))


def effective_weights(model: JSIGRModel, factor: float | None = None) -> dict[str, float]:
    """Return the weights of the penalties times warm-up and penalty factor."""
    if factor is None:
        factor = read_scalar(model.penalty_factor)
    scale = model.warmup_progress() * factor
    return {name: scale * weight for name, weight in model.penalty_weights.items()}


def loss_shares(logs: Mapping[str, float], weights: Mapping[str, float]) -> dict[str, float]:
    """Compute the share of each weighted penalty in the loss from means in the logs."""
    if "task_loss" not in logs:
        return {}
    parts = {
        name: max(weight * logs[f"{name}_penalty"], 0.0)
        for name, weight in weights.items()
        if f"{name}_penalty" in logs
    }
    total = abs(logs["task_loss"]) + sum(parts.values())
    return {name: part / total if total > 0 else 0.0 for name, part in parts.items()}


def gradient_shares(norms: Mapping[str, float], weights: Mapping[str, float]) -> dict[str, float]:
    """Compute the shares of the task and of each weighted penalty in the gradient."""
    weighted = {name: norm * weights.get(name, 1.0) for name, norm in norms.items()}
    total = sum(weighted.values())
    return {name: norm / total if total else 0.0 for name, norm in weighted.items()}


def gradient_norms_of(model: JSIGRModel) -> Norms:
    """Compile the norms of the gradients of task loss and unweighted penalties.

    The weights of the model may change between calls.
    """

    @tf.function(autograph=False)
    def scaled_norms(x: Any, y: Any, seed: Any, scale: Any) -> dict[str, Any]:
        # The states that a pass in training mode moves are discarded, in this graph.
        # A rematerialized layer runs its forward pass again in the backward pass.
        with stateless(), exact_moments():
            with model.recorded_loss(x, y, None, seed, persistent=True) as (tape, loss):
                parts = {"task": tf.cast(loss.task, tf.float32), **loss.penalties}
                # In half precision a scaled loss keeps small gradients.
                scaled = {
                    name: scale * model.optimizer.scale_loss(part) for name, part in parts.items()
                }
            found = {}
            for name, part in scaled.items():
                gradients = tape.gradient(part, model.trainable_variables)
                found[name] = tf.linalg.global_norm(
                    [
                        tf.cast(tf.convert_to_tensor(gradient), tf.float32)
                        for gradient in gradients
                        if gradient is not None
                    ]
                )
            return found

    def norms(x: Any, y: Any, seed: Any) -> dict[str, float]:
        found: dict[str, float] = {}
        for scale in map(tf.constant, LOSS_SCALES):
            values = scaled_norms(x, y, seed, scale)
            found = {name: float(value) for name, value in values.items()}
            if all(map(math.isfinite, found.values())):
                break
        return found

    return norms
