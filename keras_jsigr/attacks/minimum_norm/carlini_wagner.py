"""Carlini and Wagner's L2 attack."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from keras_jsigr.attacks.minimum_norm.boundary import NO_GRADIENT
from keras_jsigr.attacks.minimum_norm.closest import Closest
from keras_jsigr.attacks.minimum_norm.constant_search import (
    constant_next,
    constant_start,
)
from keras_jsigr.attacks.minimum_norm.descent import Descent, descend, descent_start
from keras_jsigr.attacks.minimum_norm.minimum_norm import MinimumNormAttack
from keras_jsigr.attacks.minimum_norm.tanh_box import to_box
from keras_jsigr.attacks.search.problem import Problem
from keras_jsigr.attacks.search.rows import put, true_rows
from keras_jsigr.attacks.search.scaled_gradient import scaled_gradient
from keras_jsigr.core import settings
from keras_jsigr.core.logits import LogitsFn


@keras.saving.register_keras_serializable(package="keras_jsigr")
@dataclass(frozen=True, kw_only=True)
class CarliniWagner(MinimumNormAttack):
    """Minimise distance and margin together, with the best weight between them.

    `min_w ||x' - x||_2^2 + c * max(confidence - margin(x'), 0)` with
    `x' = low + (high - low) (tanh(w) + 1) / 2`, by Adam. The margin is the largest
    other logit minus that of the class to leave or, with `targeted=True`, the logit of
    the class to reach minus the largest other. Distances count in widths of the range,
    so that `initial_constant` means the same for images of 0 to 1 and 0 to 255. The
    constant `c` is found by binary search for each example.

    Args:
        epsilon: Radius in input units, >= 0; infinity (in a configuration `None`) sets
            no limit.
        norm: `"l2"`.
        input_range: `(low, high)` of valid inputs.
        targeted: Whether `y` is the class to reach.
        steps: Largest number of steps of Adam for a constant, >= 1.
        searches: Number of constants tried, >= 1.
        initial_constant: The first of them, > 0.
        confidence: Margin that a point needs to count as fooling, >= 0, in the units of
            the logits.
        learning_rate: Length of Adam's steps in `w`, > 0.
        abort_early: Whether to give a constant up for an example where a tenth of the
            steps made the loss less than a ten-thousandth smaller.
        search_passes: Number of forward passes that move a point towards its input in
            the end; 0 returns what the method itself arrives at.
        batch_size: Number of examples worked on at once.
        seed: Not used: nothing is random.
        verbose: 1 shows a progress bar, 0 none, `"auto"` one for long runs.

    Raises:
        TypeError: If a setting has the wrong type.
        ValueError: If a setting is out of range.

    Reference:
        arXiv 1608.04644, sections V and VI-A; arXiv 1412.6980 (Adam).

    Example:
        >>> import numpy as np
        >>> from keras_jsigr.attacks.minimum_norm.carlini_wagner import CarliniWagner
        >>> x = np.array([[0.5, 0.75]], "float32")
        >>> attack = CarliniWagner(steps=50, searches=5, learning_rate=0.05)
        >>> attack(lambda x: x, x, [1]).round(2).tolist()
        [[0.6299999952316284, 0.6299999952316284]]
    """

    norm: str = "l2"
    steps: int = 1000
    searches: int = 9
    initial_constant: float = 1e-3
    confidence: float = 0.0
    learning_rate: float = 0.01
    abort_early: bool = True

    def __post_init__(self) -> None:
        """Check the settings and bring them to their plain Python types."""
        super().__post_init__()
        settings.choice("norm", self.norm, ("l2",))
        settings.choice("abort_early", self.abort_early, (False, True))
        for name in ("steps", "searches"):
            self._set(name, settings.count(name, getattr(self, name)))
        for name in ("initial_constant", "confidence", "learning_rate"):
            above = name != "confidence"
            value = settings.number(name, getattr(self, name), minimum=0.0, above=above)
            self._set(name, value)

    @property
    def name(self) -> str:
        """`"CW-L2"`."""
        return "CW-L2"

    @property
    def passes(self) -> int:
        """Largest number of steps per example."""
        return self.steps * self.searches

    def margin(self, logits: tf.Tensor, problem: Problem) -> tf.Tensor:
        """Return the margin beyond the confidence asked for, float32 `(B,)`."""
        return super().margin(logits, problem) - self.confidence

    def approach(
        self,
        logits_fn: LogitsFn,
        problem: Problem,
        logits: tf.Tensor,
        known: Closest,
        seed: tf.Tensor,
    ) -> tuple[Closest, tf.Tensor]:
        """Minimise with all constants; see `MinimumNormAttack.approach`."""
        del logits, seed

        def one_try(search: Any, best: Closest, finite: tf.Tensor) -> Any:
            best, state = self._minimise(logits_fn, problem, search.constant, best)
            return (
                constant_next(search, state.success),
                best,
                finite & state.finite,
            )

        start = constant_start(known.distance, self.initial_constant)
        _, best, finite = tf.while_loop(
            lambda search, best, finite: tf.reduce_any(self.unfinished(best)),
            one_try,
            (start, known, tf.ones_like(known.found)),
            maximum_iterations=self.searches,
        )
        return best, finite

    def _minimise(
        self, logits_fn: LogitsFn, problem: Problem, constant: Any, known: Closest
    ) -> tuple[Closest, Descent]:
        """Run Adam with one constant per example, each as long as it gains."""

        def one_step(step: tf.Tensor, state: Descent, best: Closest) -> Any:
            rows = true_rows(state.running)
            part, old = problem.take(rows), state.take(rows)
            point = to_box(old.adam.w, self.input_range)
            with tf.GradientTape(
                persistent=True, watch_accessed_variables=False
            ) as tape:
                tape.watch(point)
                near, fools, margin = self.judge(
                    logits_fn, part, point, best.take(rows)
                )
            uphill = scaled_gradient(tape, margin, point, tf.ones_like(margin))
            if uphill is None:
                raise ValueError(NO_GRADIENT)
            new = descend(
                old,
                part.origin,
                uphill,
                tf.cast(margin, point.dtype),
                tf.gather(constant, rows),
                input_range=self.input_range,
                step=step,
                learning_rate=self.learning_rate,
            )
            check = (step % max(self.steps // 10, 1) == 0) & self.abort_early
            new = new.judged(fools, check)
            new = new._replace(running=new.running & self.unfinished(near))
            return step + 1, *put((new, near), rows, (state, best))

        start = descent_start(problem.origin, self.input_range, self.unfinished(known))
        _, state, best = tf.while_loop(
            lambda step, state, best: tf.reduce_any(state.running),
            one_step,
            (tf.constant(0), start, known),
            maximum_iterations=self.steps,
        )
        return best, state
