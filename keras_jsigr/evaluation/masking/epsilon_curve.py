"""Rule: a larger radius does not make the attack stronger."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from keras_jsigr.evaluation.masking.subject import Subject
from keras_jsigr.evaluation.masking.tail_probability import (
    clearly_more,
    clearly_moved,
)
from keras_jsigr.evaluation.masking.verdict import Verdict, percent
from keras_jsigr.evaluation.task import widest_radius

FACTORS = (0.5, 1.0, 2.0)
# Larger steps of a larger ball overlook an example here and there.
TOLERATED = 0.02


def epsilon_curve(subject: Subject) -> Verdict:
    """Attack at half, once and twice the radius, and at one that covers the range.

    The accuracy must not rise with the radius; at the last every example can become any
    other, so nothing above guessing may be left: the largest class or `1 / C`.

    Args:
        subject: The model under diagnosis.

    Returns:
        The verdict.

    Reference:
        arXiv 1802.00420, section 3.1; arXiv 1902.06705, section 4.2.
    """
    rows, total = subject.rows, len(subject.rows)
    widest = widest_radius(subject.norm, subject.input_range, subject.x[0].size)
    radii = [f * subject.epsilon for f in FACTORS if f * subject.epsilon < widest]
    radii.append(widest)
    curve = [
        subject.under_pgd
        if radius == subject.epsilon
        else subject.under(subject.pgd.at(radius))
        for radius in radii
    ]
    pairs = list(pairwise(curve))
    risen = [int((~a & b)[rows].sum()) for a, b in pairs]
    fallen = [int((a & ~b)[rows].sum()) for a, b in pairs]
    rises = any(
        clearly_moved(up, down, total, TOLERATED)
        for up, down in zip(risen, fallen, strict=True)
    )
    counts = np.bincount(subject.y, minlength=subject.classes)
    chance = max(float(counts.max()) / len(subject.x), 1.0 / subject.classes)
    end = int(curve[-1].sum())
    above = chance < 1.0 and clearly_more(end, len(subject.x), chance)
    figures = {
        f"accuracy_at_{radius:g}": float(right.mean())
        for radius, right in zip(radii, curve, strict=True)
    }
    change = max(up - down for up, down in zip(risen, fallen, strict=True))
    figures |= {"largest_rise": max(change, 0) / total, "chance": chance}
    listed = ", ".join(percent(float(right.mean())) for right in curve)
    says = (
        f"Over growing radii PGD leaves {listed}; the last one covers the whole range, "
        f"where guessing has {percent(chance)}."
    )
    advice = (
        "The attack fails where it has room enough, so it does not find what is there. "
        "Do not quote it; look at the gradients and at black-box attacks."
    )
    return Verdict(rises or above, says, figures, advice)
