"""Tell in time when a penalty does nothing, or nothing else counts any more."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import keras
import tensorflow as tf

from keras_jsigr.callbacks.robust_accuracy import EpochMeasurement
from keras_jsigr.core.inputs import unchanged_state
from keras_jsigr.core.variables import read_scalar
from keras_jsigr.model import JSIGRModel
from keras_jsigr.penalties.objective import ramp_factor
from keras_jsigr.penalties.settings import PenaltySettings
from keras_jsigr.training.validation import is_cross_entropy

NOTHING, DROWNED = 1e-3, 0.9


_SETTINGS = {
    "jacobian": "jacobian_weight",
    "selective": "selective_weight",
    "align": "align_weight",
    "fused": "jacobian_weight and selective_weight",
}


def advice(
    shares: Mapping[str, float], weights: Mapping[str, float], of: str
) -> dict[str, str]:
    """Say what is wrong with the weights of the penalties."""
    penalties = {name: share for name, share in shares.items() if name != "task"}
    found = {
        f"{name} does nothing": _nothing(name, share, weights[name], of)
        for name, share in penalties.items()
        if share < NOTHING
    }
    if sum(penalties.values()) > DROWNED:
        name = max(penalties, key=lambda name: penalties[name])
        found["drowned"] = _drowned(name, shares, weights[name], of)
    return found


def _nothing(name: str, share: float, weight: float, of: str) -> str:
    setting = _SETTINGS[name]
    start = (
        f"The {name} penalty does nothing: its share of the {of} is "
        f"{100.0 * share:.2g} %, below {100.0 * NOTHING:g} %. "
    )
    if share == 0.0 and weight > 0.0:
        return (
            f"{start}No weight can change that: it is zero on these examples. Look for "
            "saturated or dead units, and for layers without a second derivative."
        )
    if name == "fused" or share == 0.0:
        remedy = f"Raise {setting} tenfold" if weight else f"Raise {setting} above 0"
    else:
        wanted = weight * (0.1 / 0.9) * (1.0 - share) / share
        remedy = f"Raise {setting} (now {weight:.2g}) to about {wanted:.2g}"
    off = "=0 and ".join(setting.split(" and ")) + "=0"
    return f"{start}{remedy}. Or do without: {off} saves its cost."


def _drowned(name: str, shares: Mapping[str, float], weight: float, of: str) -> str:
    share, setting = shares[name], _SETTINGS[name]
    held = 1.0 - shares["task"]
    remedy = f"Lower {setting}"
    if name != "fused" and share > 0.5:
        wanted = weight * (1.0 - share) / share
        remedy += f" (now {weight:.2g}) to about {wanted:.2g}"
    return (
        f"The penalties drown the task loss: they have {100.0 * held:.0f} % of the "
        f"{of}, the {name} penalty alone {100.0 * share:.0f} %. The model gets flat "
        f"before it gets right. {remedy}, or let the penalties grow in more slowly "
        "with `ramp_steps`."
    )


# Training weighs the penalties, which keeps them within float16 at the loss scale; at
# weight one they may need less of it.
_SCALES = (1.0, 2.0**-6, 2.0**-12)


Norms = Callable[[Any, Any, Any], dict[str, float]]


def gradient_norms(
    model: JSIGRModel, x: Any, y: Any, seed: Any, scale: Any = 1.0
) -> dict[str, Any]:
    """Compute the norms of the gradients of the parts of the loss."""
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
    """Compile `gradient_norms` for a model, to call it again and again."""

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
    """Compute the share of the task and of each weighted penalty in the pull."""
    pulls = {name: norm * weights.get(name, 1.0) for name, norm in norms.items()}
    total = sum(pulls.values())
    return {name: pull / total if total else 0.0 for name, pull in pulls.items()}


def shares_of_epoch(model: Any, logs: Mapping[str, float]) -> dict[str, float]:
    """Compute the share of each weighted penalty in the loss of an epoch."""
    return loss_shares(logs, effective_weights(model, logs.get("penalty_factor")))


def loss_shares(
    logs: Mapping[str, float], weights: Mapping[str, float]
) -> dict[str, float]:
    """Compute the share of each weighted penalty in the loss."""
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
    """Read the present weights of the penalties of a hardened model."""
    if factor is None:
        own = model.penalty_factor
        factor = 1.0 if own is None else float(read_scalar(own))
    share = ramp(model) * factor
    return {name: share * weight for name, weight in penalty_weights(model).items()}


def penalty_weights(model: Any) -> dict[str, float]:
    """Read the weights of the penalties of a hardened model as they are set."""
    return {
        "jacobian": read_scalar(model.jacobian_weight),
        "selective": read_scalar(model.selective_weight),
        "align": read_scalar(model.align_weight),
        "fused": 1.0,
    }


def ramp(model: Any) -> float:
    """Read how far the penalties of a hardened model have grown in."""
    steps = (model.optimizer.iterations, model.delay_steps, model.ramp_steps)
    return float(ramp_factor(*(keras.ops.convert_to_numpy(step) for step in steps)))


# Of the cross entropy, in nats.
BY_HEART = 0.05


def score_advice(
    settings: PenaltySettings, weights: Mapping[str, float], task_loss: float
) -> dict[str, str]:
    """Say when the gradient of the log probability has next to nothing left."""
    takes_score = settings.form != "fused" and settings.score == "log_prob"
    if not (takes_score and weights.get("selective", 0.0) > 0.0):
        return {}
    if not 0.0 <= task_loss < BY_HEART:
        return {}
    return {
        "learnt by heart": (
            f"The model has learnt its training images by heart: their mean task loss "
            f"is {task_loss:.2g}. The gradient of score='log_prob' vanishes there, and "
            "with it what the selective penalty does on images not seen. Pass "
            "score='margin' to `harden`."
        )
    }


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
