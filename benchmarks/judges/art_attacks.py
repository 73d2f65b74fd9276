"""The attacks of the Adversarial Robustness Toolbox (ART) on a Keras 3 model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from judges.budget import Budget, Make, Run

NORMS = {"linf": np.inf, "l2": 2}

MISSING = {
    "MI-FGSM": "disabled for TensorFlow (its issue 2439)",
    "DeepFool-Linf": "L2 only",
}


def classifier(model: Any) -> Any:
    """Wrap a Keras classifier with logits and inputs in 0..1."""
    from art.estimators.classification import TensorFlowV2Classifier

    return TensorFlowV2Classifier(
        model=model,
        nb_classes=model.output_shape[-1],
        input_shape=model.input_shape[1:],
        loss_object=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        clip_values=(0.0, 1.0),
    )


def _seeded(attack: Any, seed: int) -> Run:
    def run(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        # It draws from NumPy's global generator and knows no seed of its own.
        np.random.seed(seed)
        return attack.generate(x.copy(), y)

    return run


def fgsm(model: Any, budget: Budget) -> Run:
    """Prepare `FastGradientMethod`."""
    from art.attacks.evasion import FastGradientMethod

    attack = FastGradientMethod(
        classifier(model),
        norm=NORMS[budget.norm],
        eps=budget.epsilon,
        batch_size=budget.batch_size,
    )
    return _seeded(attack, budget.seed)


def pgd(model: Any, budget: Budget) -> Run:
    """Prepare `ProjectedGradientDescent`."""
    from art.attacks.evasion import ProjectedGradientDescent

    attack = ProjectedGradientDescent(
        classifier(model),
        norm=NORMS[budget.norm],
        eps=budget.epsilon,
        eps_step=budget.step_size,
        max_iter=budget.steps,
        num_random_init=budget.restarts if budget.random_start else 0,
        batch_size=budget.batch_size,
        verbose=False,
    )
    return _seeded(attack, budget.seed)


def auto_pgd(estimator: Any, budget: Budget, loss: str) -> Any:
    """Make an `AutoProjectedGradientDescent`; its first step is `2 epsilon`."""
    from art.attacks.evasion import AutoProjectedGradientDescent

    return AutoProjectedGradientDescent(
        estimator,
        norm=NORMS[budget.norm],
        eps=budget.epsilon,
        eps_step=2 * budget.epsilon,
        max_iter=budget.steps,
        nb_random_init=budget.restarts if budget.random_start else 0,
        batch_size=budget.batch_size,
        loss_type=loss,
        verbose=False,
    )


def _auto_pgd_with(loss: str) -> Make:
    def make(model: Any, budget: Budget) -> Run:
        return _seeded(auto_pgd(classifier(model), budget, loss), budget.seed)

    return make


def _square(estimator: Any, budget: Budget) -> Any:
    from art.attacks.evasion import SquareAttack

    return SquareAttack(
        estimator,
        norm=NORMS[budget.norm],
        max_iter=budget.steps,
        eps=budget.epsilon,
        nb_restarts=budget.restarts,
        batch_size=budget.batch_size,
        verbose=False,
    )


def square(model: Any, budget: Budget) -> Run:
    """Prepare `SquareAttack`."""
    return _seeded(_square(classifier(model), budget), budget.seed)


def _deepfool(estimator: Any, budget: Budget) -> Any:
    from art.attacks.evasion import DeepFool

    return DeepFool(
        estimator,
        max_iter=budget.steps,
        epsilon=budget.overshoot,
        nb_grads=10,
        batch_size=budget.batch_size,
        verbose=False,
    )


def deepfool(model: Any, budget: Budget) -> Run:
    """Prepare `DeepFool`; it starts from the model's own decisions."""
    return _seeded(_deepfool(classifier(model), budget), budget.seed)


def carlini_wagner(model: Any, budget: Budget) -> Run:
    """Prepare `CarliniL2Method`."""
    from art.attacks.evasion import CarliniL2Method

    attack = CarliniL2Method(
        classifier(model),
        learning_rate=budget.rate,
        binary_search_steps=budget.searches,
        max_iter=budget.steps,
        initial_const=budget.constant,
        batch_size=budget.batch_size,
        verbose=False,
    )
    return _seeded(attack, budget.seed)


def auto_attack_members(
    estimator: Any, budget: Budget, queries: int
) -> dict[str, Callable[[], Any]]:
    """Name what `AutoAttack` is made of by default, at this budget.

    Args:
        estimator: From `classifier`.
        budget: Steps and restarts of the gradient attacks.
        queries: Of the Square attack.

    Returns:
        Constructors by name, in the library's order.
    """
    searching = Budget(**{**vars(budget), "steps": queries, "restarts": 1})
    falling = Budget(**{**vars(budget), "steps": 50, "overshoot": 1e-3})
    return {
        "APGD-CE": lambda: auto_pgd(estimator, budget, "cross_entropy"),
        "APGD-DLR": lambda: auto_pgd(estimator, budget, "difference_logits_ratio"),
        "DeepFool": lambda: _deepfool(estimator, falling),
        "Square": lambda: _square(estimator, searching),
    }


def standard(model: Any, budget: Budget, queries: int = 5000) -> Run:
    """Prepare `AutoAttack` of the default members, but of one restart each."""
    from art.attacks.evasion import AutoAttack

    estimator = classifier(model)
    members = auto_attack_members(estimator, budget, queries)
    attack = AutoAttack(
        estimator,
        norm=NORMS[budget.norm],
        eps=budget.epsilon,
        eps_step=2 * budget.epsilon,
        attacks=[make() for make in members.values()],
        batch_size=budget.batch_size,
    )
    return _seeded(attack, budget.seed)


ATTACKS: dict[str, Make] = {
    "FGSM": fgsm,
    "PGD": pgd,
    "APGD-CE": _auto_pgd_with("cross_entropy"),
    "APGD-DLR": _auto_pgd_with("difference_logits_ratio"),
    "DeepFool-L2": deepfool,
    "CW-L2": carlini_wagner,
    "Square": square,
    "standard": standard,
}
