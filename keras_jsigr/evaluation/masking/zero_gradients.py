"""Rule: the gradient that an attacker follows is zero, or no number."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from keras_jsigr.attacks.objectives.losses import ascent_loss
from keras_jsigr.attacks.search.rounding import working_dtype
from keras_jsigr.core.logits import LogitsFn
from keras_jsigr.evaluation.masking.naive_attack import naive_loss
from keras_jsigr.evaluation.masking.subject import Subject
from keras_jsigr.evaluation.masking.tail_probability import clearly_more
from keras_jsigr.evaluation.masking.verdict import Verdict, percent

# What counts as zero: float32 cross entropy of a margin above 27 ends here.
ZERO = 1e-12
# Long trained plain networks are that sure of some examples; defenses that live on it
# are of nearly all.
TOLERATED = 0.05


def zero_gradients(subject: Subject) -> Verdict:
    """Count the examples whose input gradient is zero, or NaN or infinite.

    `max_i |dL/dx_i| < 1e-12`, once for float32 softmax cross entropy as most attack
    code has it, once for the log odds, whose gradient has the same direction and does
    not saturate: if that is zero too, the model passes no gradient.

    Args:
        subject: The model under diagnosis.

    Returns:
        The verdict.

    Reference:
        arXiv 1802.00420 (vanishing and shattered gradients), arXiv 1608.04644.
    """
    total = len(subject.x)
    naive, odds, finite = subject.compute("zero gradients", _largest, np.arange(total))
    broken = int((~finite).sum())
    vanished, none = (int((finite & (size < ZERO)).sum()) for size in (naive, odds))
    figures = {
        "share": vanished / total,
        "share_without_any": none / total,
        "share_not_finite": broken / total,
    }
    if clearly_more(broken, total, TOLERATED):
        return Verdict(
            True,
            f"The gradient is NaN or infinite at {percent(broken / total)} of {total} "
            "examples: attacks by gradients leave them, or parts of them, where they "
            "are.",
            figures,
            "Find the operation without a derivative there (a square root or a norm of "
            "zeros, a logarithm, a division) and keep it away from such values by a "
            "small number; quote Square and transferred examples until then.",
        )
    says = (
        f"The gradient of cross entropy is zero at {percent(vanished / total)} of "
        f"{total} examples"
    )
    if clearly_more(none, total, TOLERATED):
        advice = (
            "The model passes no gradient there (rounding, thresholds, argmax): attack "
            "it through a smooth stand-in for that step (BPDA), with Square and with "
            "transferred examples, and quote the worst."
        )
        also = f", and at {percent(none / total)} no other loss has one either."
        return Verdict(True, says + also, figures, advice)
    advice = (
        "The outputs are saturated: do not quote attacks on plain cross entropy. The "
        "attacks of this package follow the log odds, or loss='margin' or 'dlr'."
    )
    return Verdict(
        clearly_more(vanished, total, TOLERATED), says + ".", figures, advice
    )


def _largest(
    logits_fn: LogitsFn, x: tf.Tensor, targets: tf.Tensor, seed: tf.Tensor
) -> Any:
    del seed
    point = tf.cast(x, working_dtype(x.dtype))
    with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
        tape.watch(point)
        logits = logits_fn(tf.cast(point, x.dtype))
        naive, odds = naive_loss(logits, targets), ascent_loss(logits, targets)
    axes = list(range(1, x.shape.rank))
    gradients = [tape.gradient(loss, point) for loss in (naive, odds)]
    naive, odds = (tf.reduce_max(tf.abs(g), axes) for g in gradients)
    finite = tf.reduce_all(tf.math.is_finite(gradients[1]), axes)
    return naive, odds, finite
