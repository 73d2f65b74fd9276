"""Rule: the gradient at an input says nothing about its neighbours."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from keras_jsigr.attacks.ball import BALLS
from keras_jsigr.attacks.losses import ascent_loss
from keras_jsigr.attacks.rounding import working_dtype
from keras_jsigr.attacks.seeds import fold_in
from keras_jsigr.core.heads import LogitsFn
from keras_jsigr.evaluation.diagnostics.subject import Subject
from keras_jsigr.evaluation.diagnostics.tail_probability import clearly_moved
from keras_jsigr.evaluation.diagnostics.verdict import (
    NotApplicableError,
    Verdict,
    percent,
)

DRAWS = 4
# Mean cosine. Plain, adversarially trained and hardened networks had 0.50 to 0.99 even
# at three times the radius they were trained for, collapsed ones 0.20 to 0.42.
ALIGNED = 0.4
# No better than chance in practice: gradients are shattered, whatever the accuracy.
SHATTERED = 0.1
# The symptom of catastrophic overfitting: one step leaves at least half of the accuracy
# without attack, many steps take at least half of that.
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
    cosine, gamma, gain = subject.compute(
        "local linearity",
        _look_around(subject.norm, subject.input_range),
        rows,
        subject.epsilon,
    )
    known = np.isfinite(cosine)
    if not known.any():
        raise NotApplicableError(
            "All gradients are zero, so they have no direction: see zero_gradients."
        )
    alignment = float(cosine[known].mean())
    one, many = subject.under_fgsm[rows], subject.under_pgd[rows]
    share_one, share_many, total = one.mean(), many.mean(), len(rows)
    refuted = (
        share_one >= HALF
        and share_many <= HALF * share_one
        and clearly_moved(
            int((one & ~many).sum()), int((many & ~one).sum()), total, 0.0
        )
    )
    tiny = np.finfo(np.float32).tiny
    error = float(np.median(gamma[known] / np.maximum(gain[known], tiny)))
    figures = {
        "alignment": alignment,
        "standard_error": float(cosine[known].std() / np.sqrt(known.sum())),
        "gamma": float(np.median(gamma)),
        "relative_gamma": error,
        "kept_under_one_step": float(share_one),
        "kept_under_many": float(share_many),
    }
    curved = alignment + 3 * figures["standard_error"] < ALIGNED
    suspect = alignment + 3 * figures["standard_error"] < SHATTERED or (
        curved and bool(refuted)
    )
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
        gamma, cosine = error(step, look(step)[0]), tf.zeros_like(loss)
        for draw in range(DRAWS):
            point = ball.sample(fold_in(seed, draw))
            there, turned = look(point)
            gamma = tf.maximum(gamma, error(point, there))
            size = tf.sqrt(dot(gradient, gradient) * dot(turned, turned))
            # NaN where either is zero: no direction.
            cosine += dot(gradient, turned) / size / DRAWS
        return cosine, gamma, dot(step - origin, gradient)

    return body


def _longest(ball: Any, gradient: tf.Tensor, epsilon: tf.Tensor) -> tf.Tensor:
    return tf.cast(epsilon, gradient.dtype) * ball.steepest(gradient)
