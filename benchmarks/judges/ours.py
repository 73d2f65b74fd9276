"""The attacks of keras_jsigr, called as those of the other libraries are."""

from __future__ import annotations

from typing import Any

import numpy as np

import keras_jsigr as kj
from judges.budget import Budget, Make, Run


def run(model: Any, attack: Any) -> Run:
    """Return a call of an attack on one model."""

    def attacked(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return attack(model, x, y)

    return attacked


def _common(budget: Budget) -> dict[str, Any]:
    return {
        "epsilon": budget.epsilon,
        "norm": budget.norm,
        "batch_size": budget.batch_size,
        "seed": budget.seed,
        "verbose": 0,
    }


def stepping(budget: Budget) -> dict[str, Any]:
    """Return the settings of an attack that takes steps."""
    return {
        **_common(budget),
        "steps": budget.steps,
        "step_size": budget.step_size,
        "random_start": budget.random_start,
        "restarts": budget.restarts,
    }


def fgsm(model: Any, budget: Budget) -> Run:
    """Prepare `FGSM`."""
    return run(model, kj.attacks.FGSM(**_common(budget)))


def pgd(model: Any, budget: Budget) -> Run:
    """Prepare `PGD`."""
    return run(model, kj.attacks.PGD(**stepping(budget)))


def mifgsm(model: Any, budget: Budget) -> Run:
    """Prepare `MIFGSM`."""
    return run(model, kj.attacks.MIFGSM(**stepping(budget)))


def _auto_pgd(loss: str) -> Make:
    def make(model: Any, budget: Budget) -> Run:
        settings = stepping(budget)
        del settings["step_size"]
        return run(model, kj.attacks.APGD(**settings, loss=loss))

    return make


def _deepfool(norm: str) -> Make:
    def make(model: Any, budget: Budget) -> Run:
        attack = kj.attacks.DeepFool(
            norm=norm,
            steps=budget.steps,
            overshoot=budget.overshoot,
            batch_size=budget.batch_size,
            verbose=0,
        )
        return run(model, attack)

    return make


def carlini_wagner(model: Any, budget: Budget) -> Run:
    """Prepare `CarliniWagner`."""
    attack = kj.attacks.CarliniWagner(
        steps=budget.steps,
        searches=budget.searches,
        learning_rate=budget.rate,
        initial_constant=budget.constant,
        abort_early=False,  # all steps are taken, as the others do
        batch_size=budget.batch_size,
        verbose=0,
    )
    return run(model, attack)


def square(model: Any, budget: Budget) -> Run:
    """Prepare `Square`."""
    attack = kj.attacks.Square(**_common(budget), queries=budget.steps)
    return run(model, attack)


def standard(model: Any, budget: Budget) -> Run:
    """Prepare the standard suite."""
    return run(model, kj.attacks.AutoAttack(budget.epsilon, norm=budget.norm))


ATTACKS: dict[str, Make] = {
    "FGSM": fgsm,
    "PGD": pgd,
    "MI-FGSM": mifgsm,
    "APGD-CE": _auto_pgd("cross_entropy"),
    "APGD-DLR": _auto_pgd("dlr"),
    "DeepFool-L2": _deepfool("l2"),
    "DeepFool-Linf": _deepfool("linf"),
    "CW-L2": carlini_wagner,
    "Square": square,
    "standard": standard,
}


def _stopping(attack_class: Any) -> Make:
    def make(model: Any, budget: Budget) -> Run:
        return run(model, attack_class(**stepping(budget), early_stop=True))

    return make


# Iterative attacks with `early_stop=True`: fooled examples leave the loop.
STOPPING: dict[str, Make] = {
    "PGD": _stopping(kj.attacks.PGD),
    "MI-FGSM": _stopping(kj.attacks.MIFGSM),
}
