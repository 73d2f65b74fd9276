"""Auto-PGD: projected gradient descent that finds its own step sizes."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import keras
import tensorflow as tf

from keras_jsigr.attacks.balls.ball import Ball
from keras_jsigr.attacks.engine import GradientAttack
from keras_jsigr.attacks.gradient.momentum_ascent import momentum_step, start_momentum
from keras_jsigr.attacks.gradient.sparse_ascent import sparse_step, start_sparse
from keras_jsigr.attacks.search.ascent import ascend
from keras_jsigr.attacks.search.iterate import Iterate
from keras_jsigr.attacks.search.problem import Problem
from keras_jsigr.attacks.search.seeds import fold_in
from keras_jsigr.core.logits import LogitsFn

_NAMES = {"cross_entropy": "APGD-CE", "dlr": "APGD-DLR", "margin": "APGD-margin"}
# Under the L1 norm: factors of the radius of the wider balls, the part of the steps in
# each, and the fewest steps that are worth parting.
_WIDER, _EARLY, _ENOUGH = (3.0, 2.0), 0.3, 10


@keras.saving.register_keras_serializable(package="keras_jsigr")
@dataclass(frozen=True, kw_only=True)
class APGD(GradientAttack):
    """Take gradient steps with momentum whose size nobody has to choose.

    Steps of twice the radius first; where they do not climb any more, steps of half the
    size from the best point so far, per example (see `momentum_step`). Under
    `norm="l1"`, steps along few components, as many as the best perturbation so far
    needs (see `sparse_step`), from the best point of balls of three and of two times
    the radius, which take 0.3 of the steps each.

    Args:
        epsilon: Radius in input units, >= 0.
        steps: Number of gradient steps, >= 1.
        norm: `"linf"`, `"l2"` or `"l1"`.
        input_range: `(low, high)` of valid inputs.
        loss: `"cross_entropy"` (APGD-CE), `"dlr"` (APGD-DLR) or `"margin"`.
        targeted: Whether `y` is the class to reach.
        step_size: The first step size, in input units; default `2 * epsilon`, under
            `"l1"` `epsilon`.
        random_start: Whether to start at a random point of the ball.
        restarts: Number of random starts; per example the strongest is kept.
        early_stop: Whether to leave an example alone once it is misclassified.
        batch_size: Number of examples worked on at once.
        seed: Of the random starts.
        verbose: 1 shows a progress bar, 0 none, `"auto"` one for long runs.

    Raises:
        TypeError: If a setting has the wrong type.
        ValueError: If a setting is out of range.

    Reference:
        arXiv 2003.01690; arXiv 2103.01208 (L1).

    Example:
        >>> import numpy as np
        >>> from keras_jsigr.attacks.gradient.apgd import APGD
        >>> x = np.array([[0.5, 0.75]], "float32")
        >>> APGD(epsilon=0.25, steps=10)(lambda x: x, x, [1]).tolist()
        [[0.75, 0.5]]
    """

    keep_best: ClassVar[bool] = True
    # What a search in wider balls comes before: factor of the radius, and steps.
    _wider: ClassVar[tuple[tuple[float, int], ...]] = ()
    _start: ClassVar[tf.Tensor | None] = None

    steps: int = 100
    random_start: bool = True

    @property
    def name(self) -> str:
        """What the attack is called in reports."""
        return _NAMES[self.loss]

    def default_step_size(self) -> float:
        """Return `2 * epsilon`, under the L1 norm `epsilon`."""
        return self.epsilon if self.norm == "l1" else 2.0 * self.epsilon

    def strength(self, logits: tf.Tensor, problem: Problem) -> tf.Tensor:
        """Return the objective, which confident models do not saturate."""
        return self.objective(logits, problem)

    def last_phase(self) -> Self:
        """Return the attack whose search starts from wider balls, if the norm asks."""
        early = math.ceil(_EARLY * self.steps)
        if self.norm != "l1" or self.steps < _ENOUGH:
            return self
        phases = tuple((factor, early) for factor in _WIDER)
        return self._changed(_wider=phases, steps=self.steps - early * len(_WIDER))

    def start_point(
        self, logits_fn: LogitsFn, problem: Problem, ball: Ball, seed: tf.Tensor
    ) -> tf.Tensor:
        """Return where the search starts: if asked, at the best of the wider balls."""
        if self._start is not None:
            return ball.project(self._start)
        x = super().start_point(logits_fn, problem, ball, seed)
        for number, (factor, steps) in enumerate(self._wider):
            wide = self._changed(
                epsilon=factor * self.epsilon,
                steps=steps,
                restarts=1,
                random_start=False,
                early_stop=False,
                _start=x,
                _wider=(),
            )
            seed_now = fold_in(seed, number + 1)
            x = ascend(wide, logits_fn, problem, seed_now, remember=True)[0].x
        return ball.project(x)

    def start_state(self, x: tf.Tensor) -> Any:
        """Return the state of the norm's method."""
        start = start_sparse if self.norm == "l1" else start_momentum
        return start(x, self.step_length)

    def gradient(
        self,
        logits_fn: LogitsFn,
        x: tf.Tensor,
        problem: Problem,
        *,
        state: Any,
        seed: tf.Tensor,
    ) -> tuple[tf.Tensor, tf.Tensor | None]:
        """Return the gradient, and always the logits at `x`, which steps go by."""
        gradient, logits = super().gradient(
            logits_fn, x, problem, state=state, seed=seed
        )
        if logits is None:
            logits = problem.logits(logits_fn, x)
        return gradient, logits

    def update(self, ball: Ball, iterate: Iterate) -> tuple[tf.Tensor, Any]:
        """Return the next point and state."""
        value = self.objective(iterate.logits, iterate.problem)
        if self.norm == "l1":
            return sparse_step(ball, iterate, value, self.steps, self.step_length)
        return momentum_step(ball, iterate, value, self.steps)

    def search(
        self, logits_fn: LogitsFn, problem: Problem, seed: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Attack one batch and keep the strongest point; see `Attack.search`."""
        last = self.last_phase()
        found, finite = ascend(last, logits_fn, problem, seed, remember=True)
        return problem.see(found.x), finite

    def _changed(self, **settings: Any) -> Self:
        # Not a `replace`, which would refuse the tensor that the radius is inside.
        other = copy.copy(self)
        for name, value in settings.items():
            other._set(name, value)
        return other
