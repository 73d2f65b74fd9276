"""Auto-PGD towards one wrong class after the other."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import keras
import tensorflow as tf

from keras_jsigr.attacks.gradient.apgd import APGD
from keras_jsigr.attacks.objectives.dlr import dlr_loss, targeted_dlr_loss
from keras_jsigr.attacks.objectives.losses import LossName, misclassified
from keras_jsigr.attacks.search.ascent import ascend
from keras_jsigr.attacks.search.found import Found, stronger
from keras_jsigr.attacks.search.problem import Problem
from keras_jsigr.attacks.search.rows import put
from keras_jsigr.attacks.search.seeds import fold_in
from keras_jsigr.core import settings
from keras_jsigr.core.logits import LogitsFn


@keras.saving.register_keras_serializable(package="keras_jsigr")
@dataclass(frozen=True, kw_only=True)
class APGDT(APGD):
    """Run Auto-PGD towards each of the most likely wrong classes until one succeeds.

    Per example and wrong class `t`, in the order of their logits at `x`, the difference
    of logits ratio of `t` and the true class is driven up. Only the examples that are
    still right go on to the next class. Any wrong class counts as a success.

    Args:
        epsilon: Radius in input units, >= 0.
        steps: Number of gradient steps per class, >= 1.
        target_classes: Number of wrong classes to try, >= 1; all of them if there are
            fewer.
        norm: `"linf"`, `"l2"` or `"l1"`.
        input_range: `(low, high)` of valid inputs.
        step_size: The first step size, in input units; see `APGD`.
        random_start: Whether to start at a random point of the ball.
        restarts: Number of random starts per class.
        early_stop: Whether to leave an example alone once it is misclassified; without
            it, the steps towards that class are all taken.
        batch_size: Number of examples worked on at once.
        seed: Of the random starts.
        verbose: 1 shows a progress bar, 0 none, `"auto"` one for long runs.

    Raises:
        TypeError: If a setting has the wrong type.
        ValueError: If a setting is out of range.

    Reference:
        arXiv 2003.01690, section 5.

    Example:
        >>> import numpy as np
        >>> from keras_jsigr.attacks.gradient.apgd_targeted import APGDT
        >>> x = np.array([[0.75, 0.5, 0.0]], "float32")
        >>> APGDT(epsilon=0.25, steps=10)(lambda x: x, x, [0])[0, :2].tolist()
        [0.5, 0.75]
    """

    target_classes: int = 9
    # The loss and what `y` means are what the method is.
    loss: LossName = field(default="dlr", init=False, repr=False)
    targeted: bool = field(default=False, init=False, repr=False)

    def __post_init__(self) -> None:
        """Check the settings and bring them to their plain Python types."""
        super().__post_init__()
        count = settings.count("target_classes", self.target_classes)
        self._set("target_classes", count)

    @property
    def name(self) -> str:
        """What the attack is called in reports."""
        return "APGD-T"

    @property
    def passes(self) -> int:
        """Number of gradients per example that no class succeeds for."""
        return super().passes * self.target_classes

    def objective(self, logits: tf.Tensor, problem: Problem) -> tf.Tensor:
        """Return the loss to climb: towards the goal, if there is one."""
        if problem.goals is None:
            return dlr_loss(logits, problem.targets)
        return targeted_dlr_loss(logits, problem.targets, problem.goals)

    def strength(self, logits: tf.Tensor, problem: Problem) -> tf.Tensor:
        """Return the untargeted ratio, by which all goals compare."""
        return dlr_loss(logits, problem.targets)

    def search(
        self, logits_fn: LogitsFn, problem: Problem, seed: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Attack one batch class by class; see `Attack.search`."""
        logits = problem.logits(logits_fn, problem.origin)
        classes = logits.shape[-1]
        best = Found(
            problem.origin,
            misclassified(logits, problem.targets),
            self.strength(logits, problem),
        )
        # The true class ranks last, and the last rank is never tried.
        true = tf.one_hot(tf.argmax(problem.targets, axis=-1), classes, True, False)
        wrong = tf.where(true, tf.fill(tf.shape(logits), logits.dtype.min), logits)
        ranks = min(self.target_classes, classes - 1)
        ranking = tf.math.top_k(wrong, ranks).indices
        last = self.last_phase()

        def towards(rank: tf.Tensor, best: Found, finite: tf.Tensor) -> Any:
            rows = tf.cast(tf.where(~best.success)[:, 0], tf.int32)
            goals = tf.one_hot(tf.gather(ranking[:, rank], rows), classes)
            part = problem.take(rows)._replace(goals=goals)
            new, healthy = ascend(
                last, logits_fn, part, fold_in(seed, rank), remember=True
            )
            finite = tf.tensor_scatter_nd_update(
                finite, rows[:, None], healthy & tf.gather(finite, rows)
            )
            best = put(stronger(new, best.take(rows)), rows, best)
            return rank + 1, best, finite

        start = (tf.constant(0), best, tf.ones_like(best.success))
        _, best, finite = tf.while_loop(
            lambda rank, best, _: (rank < ranks) & ~tf.reduce_all(best.success),
            towards,
            start,
            maximum_iterations=ranks,
        )
        return problem.see(best.x), finite
