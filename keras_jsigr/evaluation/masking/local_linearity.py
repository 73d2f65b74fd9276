"""Rule: the gradient at an input says nothing about its neighbours."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from keras_jsigr.attacks.balls.ball import BALLS
from keras_jsigr.attacks.balls.normalize import safe_normalize
from keras_jsigr.attacks.objectives.losses import ascent_loss
from keras_jsigr.attacks.search.rounding import working_dtype
from keras_jsigr.attacks.search.seeds import fold_in
from keras_jsigr.core.logits import LogitsFn
from keras_jsigr.evaluation.masking.subject import Subject
from keras_jsigr.evaluation.masking.tail_probability import (
    clearly_moved,
    standard_error,
)
from keras_jsigr.evaluation.masking.verdict import (
    NotApplicableError,
    Verdict,
    percent,
)

DRAWS = 4
# Mean cosine. On Fashion-MNIST plain, adversarially trained and hardened networks had
# 0.86 to 0.96 at their radius and 0.57 or more at three times that, collapsed ones 0.27
# to 0.46.
ALIGNED = 0.5
# No better than chance in practice: gradients are shattered, whatever the accuracy.
SHATTERED = 0.1
# The symptom of catastrophic overfitting: one step leaves much of the accuracy without
# attack, many steps take at least half of that.
MUCH = 0.4
HALF = 0.5


def local_linearity(subject: Subject) -> Verdict:
    """Compare the gradients at `x` and at uniform noise around it.

    `cos(g(x), g(x + noise))`, the mean over four draws, and the linearization error
    `gamma = max_d |L(x + d) - L(x) - d^T g(x)|` over those draws and the single step of
    largest gain, as a share of the predicted gain. The loss is the log odds: same
    directions as cross entropy, without saturation.

    Low alignment alone is no masking: deep plain networks are curved as well. It is
    suspect together with a single-step accuracy that many steps refute (catastrophic
    overfitting), or if gradients have no relation at all.

    Args:
        subject: The model under diagnosis.

    Returns:
        The verdict.

    Reference:
        arXiv 2007.02617 (alignment), arXiv 1907.02610 (gamma).
    """
    rows = subject.rows
    known, cosine, gamma, gain = subject.compute(
        "local linearity",
        _look_around(subject.norm, subject.input_range),
        rows,
        subject.epsilon,
    )
    # A gradient or a loss that is NaN or infinite has none either.
    known &= np.isfinite(cosine) & np.isfinite(gamma) & np.isfinite(gain)
    if not known.any():
        raise NotApplicableError(
            "All gradients are zero or not finite: they have no direction to compare."
        )
    alignment = float(cosine[known].mean())
    one, many = subject.under_fgsm[rows], subject.under_pgd[rows]
    share_one, share_many, total = one.mean(), many.mean(), len(rows)
    refuted = (
        share_one >= MUCH
        and share_many <= HALF * share_one
        and clearly_moved(
            int((one & ~many).sum()), int((many & ~one).sum()), total, 0.0
        )
    )
    # At a corner of the range nothing is gained: one stands for any large ratio.
    gamma, gain = gamma[known], np.maximum(gain, gamma)[known]
    relative = gamma / np.where(gain > 0, gain, 1.0)
    error = standard_error(cosine[known])
    figures = {
        "alignment": alignment,
        "standard_error": error,
        "gamma": float(np.median(gamma)),
        "relative_gamma": float(np.median(relative)),
        "kept_under_one_step": float(share_one),
        "kept_under_many": float(share_many),
    }
    highest = alignment + 3 * error
    suspect = highest < SHATTERED or (highest < ALIGNED and bool(refuted))
    says = (
        f"Gradients at an input and at noise of the radius have a mean cosine of "
        f"{alignment:.2f}. Of the right decisions one step leaves "
        f"{percent(share_one)}, many steps leave {percent(share_many)}."
    )
    advice = (
        "The loss is curved within the radius, so robustness to one step means "
        "nothing (catastrophic overfitting). Train with a random start, more steps or "
        "a penalty on the gradients, and quote APGD with restarts and Square only."
    )
    return Verdict(suspect, says, figures, advice)


def _look_around(norm: str, input_range: tuple[float, float]) -> Any:
    def body(
        logits_fn: LogitsFn,
        x: tf.Tensor,
        targets: tf.Tensor,
        seed: tf.Tensor,
        epsilon: tf.Tensor,
    ) -> Any:
        origin = tf.cast(x, working_dtype(x.dtype))
        ball = BALLS[norm](origin, tf.cast(epsilon, origin.dtype), input_range)
        axes = list(range(1, x.shape.rank))

        def look(point: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(point)
                logits = logits_fn(tf.cast(point, x.dtype))
                loss = ascent_loss(logits, targets)
            return loss, tape.gradient(loss, point)

        def dot(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
            return tf.cast(tf.reduce_sum(a * b, axes), tf.float32)

        loss, gradient = look(origin)

        def error(point: tf.Tensor, there: tf.Tensor) -> tf.Tensor:
            return tf.abs(there - loss - dot(point - origin, gradient))

        step = ball.project(origin + _longest(ball, gradient, epsilon))

        def draw(number: tf.Tensor, cosine: tf.Tensor, gamma: tf.Tensor) -> Any:
            point = tf.ensure_shape(ball.sample(fold_in(seed, number)), x.shape)
            there, turned = look(point)
            cosine += dot(safe_normalize(gradient), safe_normalize(turned)) / DRAWS
            return number + 1, cosine, tf.maximum(gamma, error(point, there))

        start = (tf.constant(0), tf.zeros_like(loss), error(step, look(step)[0]))
        _, cosine, gamma = tf.while_loop(lambda n, *_: n < DRAWS, draw, start)
        known = tf.reduce_any(gradient != 0, axes)
        return known, cosine, gamma, dot(step - origin, gradient)

    return body


def _longest(ball: Any, gradient: tf.Tensor, epsilon: tf.Tensor) -> tf.Tensor:
    return tf.cast(epsilon, gradient.dtype) * ball.steepest(gradient)
