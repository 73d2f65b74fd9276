"""The attacks of cleverhans on a Keras 3 model with logits and inputs in 0..1."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from judges.budget import Budget, Make, Run, in_batches

NORMS = {"linf": np.inf, "l2": 2}
# Without both bounds nothing is clipped; its checks do not run on NumPy 1.24 and later.
_COMMON = {"clip_min": 0.0, "clip_max": 1.0, "sanity_checks": False}

MISSING = {
    "APGD-CE": "not in cleverhans",
    "APGD-DLR": "not in cleverhans",
    "DeepFool-L2": "not in cleverhans",
    "DeepFool-Linf": "not in cleverhans",
    "CW-L2": "fails on Keras 3 ('list' object is not callable)",
    "Square": "not in cleverhans",
    "standard": "no suite in cleverhans",
}


def fgsm(model: Any, budget: Budget) -> Run:
    """Prepare `fast_gradient_method`."""
    from cleverhans.tf2.attacks import fast_gradient_method as module

    def run(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return module.fast_gradient_method(
            model, tf.constant(x), budget.epsilon, NORMS[budget.norm], y=y, **_COMMON
        ).numpy()

    return in_batches(run, budget.batch_size)


def pgd(model: Any, budget: Budget) -> Run:
    """Prepare `projected_gradient_descent`."""
    from cleverhans.tf2.attacks import projected_gradient_descent as module

    if budget.restarts > 1:
        raise ValueError("cleverhans has no restarts")
    # Once, and not in every call: it empties the caches of compiled functions.
    tf.random.set_seed(budget.seed)

    def run(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return module.projected_gradient_descent(
            model,
            tf.constant(x),
            budget.epsilon,
            budget.step_size,
            budget.steps,
            NORMS[budget.norm],
            y=y,
            rand_init=budget.random_start,
            **_COMMON,
        ).numpy()

    return in_batches(run, budget.batch_size)


def mifgsm(model: Any, budget: Budget) -> Run:
    """Prepare `momentum_iterative_method`."""
    from cleverhans.tf2.attacks import momentum_iterative_method as module

    def run(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return module.momentum_iterative_method(
            model,
            tf.constant(x),
            budget.epsilon,
            budget.step_size,
            budget.steps,
            NORMS[budget.norm],
            y=y,
            decay_factor=1.0,
            **_COMMON,
        ).numpy()

    return in_batches(run, budget.batch_size)


ATTACKS: dict[str, Make] = {"FGSM": fgsm, "PGD": pgd, "MI-FGSM": mifgsm}
