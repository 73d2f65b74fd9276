"""The attacks of Foolbox on a Keras 3 model with logits and inputs in 0..1."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from judges.budget import Budget, Make, Run, in_batches

MISSING = {
    "APGD-CE": "not in Foolbox",
    "APGD-DLR": "not in Foolbox",
    "Square": "not in Foolbox",
    "standard": "no suite in Foolbox",
}


def _prepared(model: Any, attack: Any, budget: Budget, epsilon: float | None) -> Run:
    import foolbox

    wrapped = foolbox.TensorFlowModel(model, bounds=(0.0, 1.0))

    def run(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        labels = tf.convert_to_tensor(y)
        _, clipped, _ = attack(wrapped, tf.convert_to_tensor(x), labels, epsilons=epsilon)
        return clipped.numpy()

    # Once, and not in every call: it empties the caches of compiled functions.
    tf.random.set_seed(budget.seed)
    return in_batches(run, budget.batch_size)


def _fixed(choose: Callable[[Any, Budget], Any]) -> Make:
    def make(model: Any, budget: Budget) -> Run:
        import foolbox

        attack = choose(foolbox.attacks, budget)
        if budget.restarts > 1:
            attack = attack.repeat(budget.restarts)
        return _prepared(model, attack, budget, budget.epsilon)

    return make


def _closest(choose: Callable[[Any, Budget], Any]) -> Make:
    def make(model: Any, budget: Budget) -> Run:
        import foolbox

        run = _prepared(model, choose(foolbox.attacks, budget), budget, None)

        def honest(x: np.ndarray, y: np.ndarray) -> np.ndarray:
            # Where Carlini-Wagner finds nothing it returns a black image, which may
            # happen to fool the model: no success of the attack.
            x_adv = run(x, y)
            black = ~x_adv.any(axis=(1, 2, 3), keepdims=True)
            return np.where(black, x, x_adv)

        return honest

    return make


def _fgsm(attacks: Any, budget: Budget) -> Any:
    kinds = {"linf": "LinfFastGradientAttack", "l2": "L2FastGradientAttack"}
    return getattr(attacks, kinds[budget.norm])(random_start=budget.random_start)


def _pgd(attacks: Any, budget: Budget) -> Any:
    kinds = {"linf": "LinfPGD", "l2": "L2PGD"}
    return getattr(attacks, kinds[budget.norm])(
        abs_stepsize=budget.step_size,
        steps=budget.steps,
        random_start=budget.random_start,
    )


def _mifgsm(attacks: Any, budget: Budget) -> Any:
    return attacks.LinfMomentumIterativeFastGradientMethod(
        momentum=1.0, abs_stepsize=budget.step_size, steps=budget.steps
    )


def _deepfool(kind: str) -> Callable[[Any, Budget], Any]:
    def choose(attacks: Any, budget: Budget) -> Any:
        return getattr(attacks, kind)(steps=budget.steps, candidates=10, overshoot=budget.overshoot)

    return choose


def _carlini_wagner(attacks: Any, budget: Budget) -> Any:
    return attacks.L2CarliniWagnerAttack(
        binary_search_steps=budget.searches,
        steps=budget.steps,
        stepsize=budget.rate,
        initial_const=budget.constant,
    )


ATTACKS: dict[str, Make] = {
    "FGSM": _fixed(_fgsm),
    "PGD": _fixed(_pgd),
    "MI-FGSM": _fixed(_mifgsm),
    "DeepFool-L2": _closest(_deepfool("L2DeepFoolAttack")),
    "DeepFool-Linf": _closest(_deepfool("LinfDeepFoolAttack")),
    "CW-L2": _closest(_carlini_wagner),
}
