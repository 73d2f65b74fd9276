"""Rule: the same input gets different outputs."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from keras_jsigr.attacks.calls.predictions import predict_logits
from keras_jsigr.core.logits import as_logits
from keras_jsigr.evaluation.masking.subject import Subject
from keras_jsigr.evaluation.masking.verdict import Verdict, percent

CALLS = 3
# Of the largest logit. Kernels that add in another order change 1e-6 of it.
TOLERATED = 1e-4
_EAGER = 32


def randomness(subject: Subject) -> Verdict:
    """Ask the model several times about the same examples.

    Compiled calls on all examples, eager ones on a few: noise drawn by Python is a
    constant once the model is compiled.

    Args:
        subject: The model under diagnosis.

    Returns:
        The verdict.

    Reference:
        arXiv 1802.00420 (stochastic gradients, expectation over transformation).
    """
    difference, changed = 0.0, 0.0
    compiled = [
        predict_logits(subject.attackable, subject.x, subject.batch_size)
        for _ in range(CALLS)
    ]
    few = tf.convert_to_tensor(subject.x[:_EAGER])
    logits_fn = as_logits(subject.model, few)
    eager = [np.asarray(logits_fn(few)) for _ in range(CALLS)]
    for first, *others in (compiled, eager):
        size = max(float(np.abs(first).max()), float(np.finfo(np.float32).tiny))
        for other in others:
            difference = max(difference, float(np.abs(other - first).max()) / size)
            moved = other.argmax(-1) != first.argmax(-1)
            changed = max(changed, float(moved.mean()))
    figures = {"largest_difference": difference, "decisions_changed": changed}
    if difference <= TOLERATED:
        return Verdict(False, "Equal inputs get equal outputs.", figures)
    says = (
        f"Outputs for the same input differ by up to {percent(difference)} of the "
        f"largest logit; {percent(changed)} of the decisions change."
    )
    advice = (
        "One run of an attack measures luck. Attack the mean over many draws "
        "(expectation over transformation), judge each point by many draws, or switch "
        "the noise off."
    )
    return Verdict(True, says, figures, advice)
