"""Rule: attacks without the gradient fool where those with it do not."""

from __future__ import annotations

import numpy as np

from keras_jsigr.attacks import APGD, MIFGSM, Square
from keras_jsigr.attacks.objectives.losses import LossName
from keras_jsigr.evaluation.masking.subject import Subject
from keras_jsigr.evaluation.masking.tail_probability import clearly_more
from keras_jsigr.evaluation.masking.verdict import Verdict, percent

# Few for Square: enough to beat masked gradients, too few to beat good ones.
QUERIES = 500
# A weak white-box attack misses one or two examples of a hundred honestly.
TOLERATED = 0.02
LOSSES: tuple[LossName, ...] = ("cross_entropy", "dlr")


def black_box_beats_white_box(subject: Subject) -> Verdict:
    """Try what PGD-50 left with Square and with examples made against surrogates.

    The examples that fall get stronger white-box attacks (APGD of 100 steps, two losses
    and three restarts): what they find was only a matter of effort. What remains could
    be fooled all along, but the gradients do not lead there.

    Args:
        subject: The model under diagnosis.

    Returns:
        The verdict.

    Reference:
        arXiv 1802.00420, section 3.1; arXiv 1902.06705, section 4.3; arXiv 1912.00049.
    """
    total = len(subject.rows)
    left = np.flatnonzero(subject.under_white_box)
    square = Square(queries=QUERIES, **subject.settings)
    by_square = ~subject.under(square, left)[left]
    by_transfer = np.zeros(len(left), bool)
    for surrogate in subject.surrogates.values():
        attack = MIFGSM(**subject.settings)
        by_transfer |= ~subject.under(attack, left, surrogate)[left]
    fallen = left[by_square | by_transfer]
    unexplained = fallen
    for loss in LOSSES:
        again = APGD(loss=loss, restarts=3, early_stop=True, **subject.settings)
        unexplained = np.flatnonzero(subject.under(again, unexplained))
    figures = {
        "share": len(unexplained) / total,
        "share_before_effort": len(fallen) / total,
        "share_by_square": float(by_square.sum() / total),
        "share_by_transfer": float(by_transfer.sum() / total),
        "white_box_accuracy": len(left) / len(subject.x),
    }
    says = (
        f"Attacks without its gradient fooled the model at "
        f"{percent(len(fallen) / total)} of {total} examples where white-box attacks "
        f"did not; more effort of those still fails at "
        f"{percent(len(unexplained) / total)}."
    )
    advice = (
        "The gradients do not lead to errors that exist. Quote the per-example worst "
        "case with Square of 5,000 queries and transfer, and look for what hides them; "
        "the findings on gradients and logits tell more."
    )
    return Verdict(
        clearly_more(len(unexplained), total, TOLERATED), says, figures, advice
    )
