"""What a grid shows of a model: maps, adversarial images, and their similarity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from keras_jsigr.attacks import PGD
from keras_jsigr.attacks.calls.labels import target_rows
from keras_jsigr.attacks.calls.predictions import predict_logits
from keras_jsigr.attacks.calls.programs import Programs
from keras_jsigr.callbacks.grid.jacobian_norm import jacobian_norm_explainer
from keras_jsigr.callbacks.grid.probe import Probe
from keras_jsigr.core.scores import ScoreName, predicted_targets
from keras_jsigr.penalties import PenaltySettings
from keras_jsigr.saliency import (
    gradient_explainer,
    make_mask_bank,
    perturbation_explainer,
)
from keras_jsigr.saliency.decision import decision_of
from keras_jsigr.saliency.metrics import gini, rank_correlation, top_k_intersection

Array = npt.NDArray[Any]
TOP = 0.1


@dataclass(frozen=True)
class Measurement:
    """Hold one look at a model.

    Attributes:
        x: Float32 `(N, H, W[, C])`, the images.
        x_adv: The adversarial images, like `x`.
        labels: Integers `(N,)`: the classes that are explained and attacked.
        probabilities: Float32 `(N, K)` at the images.
        probabilities_adv: Float32 `(N, K)` at the adversarial images.
        gradient: Float32 `(N, H, W)`, the gradient maps.
        gradient_adv: Float32 `(N, H, W)`, those at the adversarial images.
        perturbation: Float32 `(N, H, W)`, the perturbation maps, each in 0..1.
        figures: Float32 `(N,)` each: `agreement` (rank correlation of gradient and
            perturbation map), `stability` (share of the top tenth that the gradient
            maps have in common), `sparsity` (Gini index of the gradient map) and
            `jacobian_norm` (per unit of the input range).
    """

    x: Array
    x_adv: Array
    labels: Array
    probabilities: Array
    probabilities_adv: Array
    gradient: Array
    gradient_adv: Array
    perturbation: Array
    figures: dict[str, Array]

    def means(self) -> dict[str, float]:
        """Return the mean of every figure over the images."""
        return {name: float(np.mean(values)) for name, values in self.figures.items()}


class Measurer:
    """Look at a model again and again, with functions that are compiled once.

    Attributes:
        classes: The number of logits of the model.

    Args:
        model: A Keras classifier of one image input.
        probe: The images.
        attack: Makes the adversarial images.
        score: What the gradient maps are of: `"log_prob"`, `"margin"` or `"logit"`.
        settings: Grid, baseline and score of the perturbation maps.

    Raises:
        ValueError: If images or labels do not fit the model.

    Example:
        >>> import numpy as np, keras
        >>> from keras_jsigr.attacks import PGD
        >>> from keras_jsigr.callbacks.grid.measurement import Measurer
        >>> from keras_jsigr.callbacks.grid.probe import check_probe
        >>> from keras_jsigr.penalties import PenaltySettings
        >>> model = keras.Sequential(
        ...     [keras.Input((8, 8)), keras.layers.Flatten(), keras.layers.Dense(3)]
        ... )
        >>> probe = check_probe(np.full((2, 8, 8), 0.5))
        >>> measure = Measurer(
        ...     model, probe, PGD(epsilon=0.1), "margin", PenaltySettings()
        ... )
        >>> sorted(measure().means())
        ['agreement', 'jacobian_norm', 'sparsity', 'stability']
    """

    def __init__(
        self,
        model: Any,
        probe: Probe,
        attack: PGD,
        score: ScoreName,
        settings: PenaltySettings,
    ) -> None:
        self._model, self._attack, self._x = model, attack, probe.x
        self._programs = Programs()
        self.classes = int(self._logits(probe.x).shape[-1])
        few = probe.x[:16]
        self._independent = decision_of(model, few).kind == "sigmoid"
        self._rows = None
        if probe.y is not None:
            rows = target_rows(probe.y, len(probe.x), self.classes)
            self._rows = np.asarray(rows)
        low, high = attack.input_range
        self._gradient = gradient_explainer(model, few, score=score, layout="image")
        self._perturbation = perturbation_explainer(
            model,
            few,
            make_mask_bank(probe.x.shape[1:], _cells(settings, probe), layout="image"),
            baseline=settings.baseline,
            score=settings.saliency_score,
        )
        self._jacobian_norm = jacobian_norm_explainer(model, few, unit=high - low)

    def __call__(self) -> Measurement:
        """Return what the model shows with its present weights."""
        x, logits = self._x, self._logits(self._x)
        labels = (logits if self._rows is None else self._rows).argmax(-1)
        x_adv = self._attack(self._model, x, labels)
        targets = labels
        if self._independent:  # the maps are of the decisions on all classes
            targets = self._rows
            if targets is None:
                targets = predicted_targets(tf.constant(logits), "sigmoid").numpy()
        gradient, gradient_adv = (
            self._gradient(x, targets),
            self._gradient(x_adv, targets),
        )
        perturbation = self._perturbation(x, targets)
        figures = {
            "agreement": rank_correlation(gradient, perturbation),
            "stability": top_k_intersection(gradient, gradient_adv, top=TOP),
            "sparsity": gini(gradient),
            "jacobian_norm": self._jacobian_norm(x),
        }
        return Measurement(
            x=x,
            x_adv=x_adv,
            labels=labels,
            probabilities=self._probabilities(logits),
            probabilities_adv=self._probabilities(self._logits(x_adv)),
            gradient=gradient,
            gradient_adv=gradient_adv,
            perturbation=perturbation,
            figures={name: np.asarray(values) for name, values in figures.items()},
        )

    def _probabilities(self, logits: Array) -> Array:
        activate = tf.sigmoid if self._independent else tf.nn.softmax
        return np.asarray(activate(logits))

    def _logits(self, x: Array) -> Array:
        return predict_logits(self._model, x, programs=self._programs)


def _cells(settings: PenaltySettings, probe: Probe) -> tuple[int, ...]:
    """Return the grid of the settings, or what small images have room for."""
    sides = np.asarray(probe.x.shape[1:3])
    return tuple(np.minimum(settings.grid, sides).tolist())
