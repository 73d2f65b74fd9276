"""Rule: multiplying the logits by a number changes what an attack finds."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from keras_jsigr.core.logits import LogitsFn
from keras_jsigr.evaluation.masking.naive_attack import naive_attack
from keras_jsigr.evaluation.masking.subject import Subject
from keras_jsigr.evaluation.masking.tail_probability import clearly_moved
from keras_jsigr.evaluation.masking.verdict import Verdict, percent

# Of all examples. Losses differ in the rival they go for: on honest networks the margin
# finds up to five in a hundred more, where saturation hides nearly all.
TOLERATED = 0.1


def logit_scale(subject: Subject) -> Verdict:
    """Run a naive attack on the logits times 0.001, 1 and 1000, and with the margin.

    No decision depends on the scale, but float32 softmax cross entropy does: the
    gradient of a saturated model is zero. If the same 20 steps find more on rescaled
    logits or with the margin, the accuracy under cross entropy is an artefact. (At 1000
    every model is saturated: only a gain counts.)

    Args:
        subject: The model under diagnosis.

    Returns:
        The verdict.

    Reference:
        arXiv 1607.04311 (rescaled logits), arXiv 1608.04644 (margin).
    """
    rows, total = subject.rows, len(subject.rows)
    body = _resisting(subject.norm, subject.input_range)

    def right_under(scale: float, margin: float = 0.0) -> Any:
        numbers = (subject.epsilon, scale, margin)
        (right,) = subject.compute("naive attack", body, rows, *numbers)
        return right

    plain = right_under(1.0)
    others = {
        "0.001": right_under(1e-3),
        "1000": right_under(1e3),
        "margin": right_under(1.0, margin=1.0),
    }
    suspect, figures = False, {"accuracy": float(plain.sum() / len(subject.x))}
    for name, right in others.items():
        fooled, missed = int((plain & ~right).sum()), int((~plain & right).sum())
        suspect |= clearly_moved(fooled, missed, total, TOLERATED)
        figures[f"accuracy_{name}"] = float(right.sum() / len(subject.x))
    says = (
        f"A plain cross-entropy attack leaves {percent(figures['accuracy'])} right, on "
        f"logits times 0.001 {percent(figures['accuracy_0.001'])}, on logits times "
        f"1000 {percent(figures['accuracy_1000'])}, with the margin loss "
        f"{percent(figures['accuracy_margin'])}."
    )
    advice = (
        "Cross entropy is saturated: results of attacks that use it as it is are too "
        "high. Use loss='margin' or 'dlr', or rescale the logits."
    )
    return Verdict(suspect, says, figures, advice)


def _resisting(norm: str, input_range: tuple[float, float]) -> Any:
    def body(
        logits_fn: LogitsFn,
        x: tf.Tensor,
        targets: tf.Tensor,
        seed: tf.Tensor,
        epsilon: tf.Tensor,
        scale: tf.Tensor,
        margin: tf.Tensor,
    ) -> tuple[tf.Tensor]:
        del seed
        right = naive_attack(
            logits_fn,
            x,
            targets,
            epsilon=epsilon,
            scale=scale,
            margin=margin,
            norm=norm,
            input_range=input_range,
        )
        return (right,)

    return body
