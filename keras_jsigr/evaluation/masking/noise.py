"""Rule: random noise of the radius finds errors that the gradient does not."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from keras_jsigr.attacks.balls.ball import BALLS
from keras_jsigr.attacks.objectives.losses import misclassified
from keras_jsigr.attacks.search.rounding import working_dtype
from keras_jsigr.attacks.search.seeds import fold_in
from keras_jsigr.core.logits import LogitsFn
from keras_jsigr.evaluation.masking.subject import Subject
from keras_jsigr.evaluation.masking.tail_probability import clearly_more, standard_error
from keras_jsigr.evaluation.masking.verdict import Verdict, percent

DRAWS = 100
# Random directions are the worst of all attacks: whatever they find, gradients do.
TOLERATED = 0.01
# In many dimensions noise hardly touches a network that gradients break; doing half of
# their harm means that the gradients know little.
HALF = 0.5
MANY_DIMENSIONS = 100
# Half of a small harm is nothing to judge by.
HARM = 0.02
# Where PGD leaves next to nothing, there is no robustness to doubt: half of its harm is
# that of a radius too large for the data.
LEFT = 0.1


def noise(subject: Subject) -> Verdict:
    """Draw 100 points of the ball per example and compare with PGD.

    Args:
        subject: The model under diagnosis.

    Returns:
        The verdict.

    Reference:
        arXiv 1802.00420, section 3.1; arXiv 1902.06705, section 4.3.
    """
    rows, total = subject.rows, len(subject.rows)
    body = _count_errors(subject.norm, subject.input_range)
    (errors,) = subject.compute("noise", body, rows, subject.epsilon)
    right = subject.under_pgd[rows]
    alone = int((right & (errors > 0)).sum())
    harm, pgd_harm = errors / DRAWS, (~right).astype(float)
    excess = harm - HALF * pgd_harm
    figures = {
        "share": alone / total,
        "clean_accuracy": total / len(subject.x),
        "noise_accuracy": float((1.0 - harm).sum() / len(subject.x)),
        "worst_noise_accuracy": float((errors == 0).sum() / len(subject.x)),
        "pgd_accuracy": float(right.sum() / len(subject.x)),
    }
    as_harmful = (
        subject.x[0].size >= MANY_DIMENSIONS
        and harm.mean() > HARM
        and excess.mean() > 3 * standard_error(excess)
        and clearly_more(int(right.sum()), total, LEFT)
    )
    says = (
        f"Noise takes the accuracy from {percent(figures['clean_accuracy'])} to "
        f"{percent(figures['noise_accuracy'])} on average, PGD to "
        f"{percent(figures['pgd_accuracy'])}; {DRAWS} draws fool the model at "
        f"{percent(alone / total)} of {total} examples where PGD does not."
    )
    advice = (
        "An attack that loses to blind guessing is broken by the model: the gradients "
        "are useless. Quote Square, transfer and noise of many draws instead."
    )
    suspect = clearly_more(alone, total, TOLERATED) or bool(as_harmful)
    return Verdict(suspect, says, figures, advice)


def _count_errors(norm: str, input_range: tuple[float, float]) -> Any:
    def body(
        logits_fn: LogitsFn,
        x: tf.Tensor,
        targets: tf.Tensor,
        seed: tf.Tensor,
        epsilon: tf.Tensor,
    ) -> tuple[tf.Tensor]:
        origin = tf.cast(x, working_dtype(x.dtype))
        ball = BALLS[norm](origin, tf.cast(epsilon, origin.dtype), input_range)

        def draw(number: tf.Tensor, errors: tf.Tensor) -> Any:
            point = tf.ensure_shape(ball.sample(fold_in(seed, number)), origin.shape)
            wrong = misclassified(logits_fn(tf.cast(point, x.dtype)), targets)
            return number + 1, errors + tf.cast(wrong, tf.int32)

        start = (tf.constant(0), tf.zeros_like(targets[:, 0], tf.int32))
        _, errors = tf.while_loop(lambda number, _: number < DRAWS, draw, start)
        return (errors,)

    return body
