"""Rule: the same input gets different outputs."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from keras_jsigr.attacks.calls.predictions import predict_logits
from keras_jsigr.core.logits import as_logits
from keras_jsigr.evaluation.masking.subject import Subject
from keras_jsigr.evaluation.masking.verdict import Verdict, percent

Floats = npt.NDArray[np.float64]

CALLS = 3
# Of the logits that decide. Kernels that add in another order change 1e-6 of them.
TOLERATED = 1e-4
_TIE = 1e-5  # Closer than this, rounding alone may change a decision.
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
    difference, changed, decided = 0.0, 0.0, False
    compiled = [
        np.asarray(
            predict_logits(subject.attackable, subject.x, subject.batch_size),
            np.float64,
        )
        for _ in range(CALLS)
    ]
    few = tf.convert_to_tensor(subject.x[:_EAGER])
    logits_fn = as_logits(subject.model, few)
    eager = [np.asarray(logits_fn(few), np.float64) for _ in range(CALLS)]
    for first, *others in (compiled, eager):
        size, gap = _size_and_gap(first)
        for other in others:
            # A class that is never chosen may have any logit: it measures itself alone.
            relative = np.abs(other - first) / np.maximum(np.abs(first), size[:, None])
            difference = max(difference, float(relative.max()))
            moved = other.argmax(-1) != first.argmax(-1)
            changed = max(changed, float(moved.mean()))
            wide = np.maximum(gap, _size_and_gap(other)[1]) > _TIE * size
            decided |= bool((moved & wide).any())
    figures = {"largest_difference": difference, "decisions_changed": changed}
    if difference <= TOLERATED and not decided:
        return Verdict(False, "Equal inputs get equal outputs.", figures)
    says = (
        f"Outputs for the same input differ by up to {percent(difference)} of the "
        f"logits that decide; {percent(changed)} of the decisions change."
    )
    advice = (
        "One run of an attack measures luck. Attack the mean over many draws "
        "(expectation over transformation), judge each point by many draws, or switch "
        "the noise off."
    )
    return Verdict(True, says, figures, advice)


def _size_and_gap(logits: Floats) -> tuple[Floats, Floats]:
    """Return, per row, how large the two top logits are and how far they are apart.

    A row of small logits is measured by what is usual: rounding is of what was added.
    """
    top = np.sort(logits, axis=-1)[:, -2:]
    size = np.abs(top).max(axis=-1)
    tiny = float(np.finfo(np.float32).tiny)
    return np.maximum(size, max(float(np.median(size)), tiny)), top[:, -1] - top[:, 0]
