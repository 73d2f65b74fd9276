"""Projected gradient descent that stops short of the decision boundary."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from keras_jsigr.attacks.balls.ball import BALLS
from keras_jsigr.attacks.gradient.pgd import PGD
from keras_jsigr.attacks.objectives.losses import misclassified
from keras_jsigr.attacks.search.problem import Problem
from keras_jsigr.attacks.search.usable_part import usable_part
from keras_jsigr.core.logits import LogitsFn


@dataclass(frozen=True, kw_only=True)
class KeptLabelPGD(PGD):
    """Attack the decision, and return the last iterate that still has the class `y`.

    The steps of `PGD` from `x` itself, so that the result is no farther away than the
    steps have led. Where no step keeps the class, it is `x`.

    Args: those of `PGD`; no random start and no restarts.

    Example:
        >>> import numpy as np
        >>> from keras_jsigr.evaluation.interpretability.kept_label_pgd import (
        ...     KeptLabelPGD,
        ... )
        >>> attack = KeptLabelPGD(epsilon=0.25, steps=10, step_size=0.05)
        >>> x = np.array([[0.5, 0.72]], "float32")
        >>> attack(lambda x: x, x, [1]).round(2).tolist()
        [[0.6000000238418579, 0.6200000047683716]]
    """

    random_start: bool = False

    def search(
        self, logits_fn: LogitsFn, problem: Problem, seed: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Attack one batch; see `Attack.search`."""
        origin = problem.origin
        ball = BALLS[self.norm](origin, self.epsilon, self.input_range, problem.region)

        def keep(x: tf.Tensor, kept: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
            lost = misclassified(logits, problem.targets)
            rows = tf.reshape(lost, [-1] + [1] * (x.shape.rank - 1))
            return tf.ensure_shape(tf.where(rows, kept, x), x.shape)

        def one_step(step: tf.Tensor, x: tf.Tensor, kept: Any, finite: Any) -> Any:
            gradient, logits = self.gradient(logits_fn, x, problem, state=(), seed=seed)
            kept = keep(x, kept, logits)
            gradient, healthy = usable_part(gradient)
            finite &= healthy
            moved = x + self.step_length * ball.steepest(gradient)
            return step + 1, ball.project(moved), kept, finite

        finite = tf.ones(tf.shape(origin)[:1], tf.bool)
        _, x, kept, finite = tf.while_loop(
            lambda step, *_: step < self.steps,
            one_step,
            (tf.constant(0), origin, origin, finite),
            maximum_iterations=self.steps,
        )
        return problem.see(keep(x, kept, problem.logits(logits_fn, x))), finite
