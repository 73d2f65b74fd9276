"""Rule: more effort of the same attack finds more."""

from __future__ import annotations

import numpy as np

from keras_jsigr.attacks import PGD
from keras_jsigr.evaluation.masking.subject import PGD_STEPS, Subject
from keras_jsigr.evaluation.masking.tail_probability import clearly_more
from keras_jsigr.evaluation.masking.verdict import Verdict, percent

RESTARTS = 4
# Of all examples: the difference that published tables are read to.
TOLERATED = 0.02


def more_steps(subject: Subject) -> Verdict:
    """Attack with twice the steps from the same starts, then from four others.

    Args:
        subject: The model under diagnosis.

    Returns:
        The verdict.

    Reference:
        arXiv 1902.06705, section 4.1 (convergence).
    """
    total = len(subject.rows)
    left = np.flatnonzero(subject.under_pgd)
    longer = PGD(steps=2 * PGD_STEPS, early_stop=True, **subject.settings)
    # All examples, so that each begins where it did; those that fall end early.
    after_steps = np.flatnonzero(subject.under_pgd & subject.under(longer))
    again = {**subject.settings, "seed": subject.seed + 1}
    starts = PGD(steps=PGD_STEPS, restarts=RESTARTS, early_stop=True, **again)
    after_all = np.flatnonzero(subject.under(starts, after_steps))
    by_steps, more = len(left) - len(after_steps), len(left) - len(after_all)
    figures = {
        "accuracy": len(left) / len(subject.x),
        "accuracy_more_steps": len(after_steps) / len(subject.x),
        "accuracy_more_starts": len(after_all) / len(subject.x),
        "share": more / total,
    }
    says = (
        f"From {PGD_STEPS} to {2 * PGD_STEPS} steps PGD fools "
        f"{percent(by_steps / total)} more of {total} examples, with {RESTARTS} random "
        f"starts on top {percent(more / total)}."
    )
    advice = (
        "PGD has not converged: its accuracy is too high, and more effort lowers it. "
        "Use APGD with several restarts and go on until nothing changes."
    )
    return Verdict(clearly_more(more, total, TOLERATED), says, figures, advice)
