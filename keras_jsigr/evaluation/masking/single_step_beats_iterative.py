"""Rule: one step fools where fifty do not."""

from __future__ import annotations

from keras_jsigr.evaluation.masking.subject import PGD_STEPS, Subject
from keras_jsigr.evaluation.masking.tail_probability import (
    clearly_more,
    clearly_moved,
)
from keras_jsigr.evaluation.masking.verdict import Verdict, percent

# Both attacks sample the edge of what is possible, so a few examples fall to the
# weaker one alone.
TOLERATED = 0.01


def single_step_beats_iterative(subject: Subject) -> Verdict:
    """Compare FGSM and PGD per example, at the same radius.

    Every point of the one is within reach of the other; if many steps do worse, the
    gradients on the way mislead.

    Args:
        subject: The model under diagnosis.

    Returns:
        The verdict.

    Reference:
        arXiv 1802.00420, section 3.1; arXiv 1902.06705, section 4.2.
    """
    rows = subject.rows
    one, many = subject.under_fgsm[rows], subject.under_pgd[rows]
    alone, other, total = int((~one & many).sum()), int((one & ~many).sum()), len(rows)
    figures = {
        "share": alone / total,
        "standard_error": (alone * (total - alone) / total**3) ** 0.5,
        "fgsm_accuracy": float(one.sum() / len(subject.x)),
        "pgd_accuracy": float(many.sum() / len(subject.x)),
    }
    suspect = clearly_more(alone, total, TOLERATED) or clearly_moved(
        alone, other, total, 0.0
    )
    says = (
        f"One step fools the model at {percent(alone / total)} of {total} examples "
        f"where {PGD_STEPS} steps do not; the accuracy is "
        f"{percent(figures['fgsm_accuracy'])} under one step and "
        f"{percent(figures['pgd_accuracy'])} under many."
    )
    advice = (
        "The gradients away from the input mislead. Try other step sizes, start at the "
        "input itself, add restarts, and take the per-example worst of all attacks."
    )
    return Verdict(suspect, says, figures, advice)
