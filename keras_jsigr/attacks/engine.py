"""The engine of all gradient attacks: one compiled loop with hooks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import tensorflow as tf

from keras_jsigr.attacks.attack import Attack
from keras_jsigr.attacks.balls.ball import Ball
from keras_jsigr.attacks.objectives.losses import ascent_loss
from keras_jsigr.attacks.search.ascent import ascend
from keras_jsigr.attacks.search.iterate import Iterate
from keras_jsigr.attacks.search.problem import Problem
from keras_jsigr.attacks.search.scaled_gradient import scaled_gradient
from keras_jsigr.core import settings
from keras_jsigr.core.logits import LogitsFn


@dataclass(frozen=True, kw_only=True)
class GradientAttack(Attack):
    """Follow the input gradient: `x <- project(x + step_size * steepest(direction))`.

    A new method overrides one or two hooks: `transform` (what the model sees),
    `gradient`, `objective` (the loss), `direction` (momentum, smoothing), `update` (the
    whole step), `start_state`. All are pure functions of tensors; they run inside a
    `tf.while_loop`. Every tensor of the state has one row per example.

    Calling keeps, per example, an iterate that was misclassified where the last one
    is not, and the strongest restart: misclassified first, then the larger loss. Of a
    method that asks the model elsewhere (a `transform`, a look ahead), the iterates
    before the last one are judged with `early_stop=True` alone.

    Args:
        step_size: Length of a step in input units, > 0; `None`: the method's default.
        random_start: Whether to start anywhere in the ball instead of at `x`.
        restarts: Number of tries, >= 1; more than one needs `random_start`.
        steps: Number of gradient steps, >= 1; a setting of the iterative methods.
        early_stop: Whether to leave an example alone once it is misclassified: much
            faster where the attack succeeds, but no strongest point for transfer. A
            method that asks the model elsewhere takes one more forward pass per step.

    Example:
        >>> import numpy as np, tensorflow as tf
        >>> from keras_jsigr.attacks import PGD
        >>> class NoisyPGD(PGD):
        ...     stochastic = True
        ...
        ...     def transform(self, x, state, seed):
        ...         return x + tf.random.stateless_normal(tf.shape(x), seed, stddev=0.1)
        >>> x = np.array([[0.5, 0.75]], "float32")
        >>> NoisyPGD(epsilon=0.25)(lambda x: x, x, [1]).tolist()
        [[0.75, 0.5]]
    """

    # Whether two runs from the same start differ, as under random transforms.
    stochastic: ClassVar[bool] = False
    # Whether the strongest iterate counts where none succeeds, instead of the last.
    keep_best: ClassVar[bool] = False

    step_size: float | None = None
    random_start: bool = False
    restarts: int = 1
    steps: int = 1
    early_stop: bool = False

    def __post_init__(self) -> None:
        """Check the settings and bring them to their plain Python types."""
        super().__post_init__()
        if self.step_size is not None:
            step_size = settings.number(
                "step_size", self.step_size, minimum=0.0, above=True
            )
            self._set("step_size", step_size)
        settings.choice("random_start", self.random_start, (False, True))
        settings.choice("early_stop", self.early_stop, (False, True))
        self._set("restarts", settings.count("restarts", self.restarts))
        self._set("steps", settings.count("steps", self.steps))
        if self.restarts > 1 and not (self.random_start or self.stochastic):
            raise ValueError(
                f"`restarts={self.restarts}` would repeat the same attack: expected "
                "random_start=True or restarts=1. Set `random_start=True`."
            )

    # ---- hooks

    def default_step_size(self) -> float:
        """Return the step length in input units used for `step_size=None`."""
        return self.epsilon / self.steps

    def start_point(
        self, logits_fn: LogitsFn, problem: Problem, ball: Ball, seed: tf.Tensor
    ) -> tf.Tensor:
        """Return where the search starts; a random point of the ball if asked."""
        return ball.sample(seed) if self.random_start else ball.origin

    def start_state(self, x: tf.Tensor) -> Any:
        """Return what a method carries from step to step; nothing by default."""
        return ()

    def transform(self, x: tf.Tensor, state: Any, seed: tf.Tensor) -> tf.Tensor:
        """Return what the model sees in place of `x`; `x` itself by default."""
        return x

    def objective(self, logits: tf.Tensor, problem: Problem) -> tf.Tensor:
        """Return the loss to climb, float32 `(B,)`; only its direction counts."""
        return self.sign * ascent_loss(logits, problem.targets, self.loss)

    def gradient(
        self,
        logits_fn: LogitsFn,
        x: tf.Tensor,
        problem: Problem,
        *,
        state: Any,
        seed: tf.Tensor,
    ) -> tuple[tf.Tensor, tf.Tensor | None]:
        """Return the gradient of the objective, and the logits at `x`.

        Only its direction per example counts (see `losses.ascent_loss`). The logits
        are `None` if the model was asked elsewhere.
        """
        with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
            tape.watch(x)
            point = tf.cast(problem.see(x), x.dtype)
            seen = self.transform(point, state, seed)
            logits = tf.cast(logits_fn(tf.cast(seen, problem.x.dtype)), tf.float32)
            value = self.objective(logits, problem)
        gradient = scaled_gradient(tape, value, x, tf.ones_like(value))
        if gradient is None:
            raise ValueError(
                "The model's outputs do not depend on its input by TensorFlow "
                "operations: got no gradient, expected one. Attack it with a method "
                "that needs none, or attack a surrogate."
            )
        return gradient, logits if seen is point else None

    def direction(self, gradient: tf.Tensor, state: Any) -> tuple[tf.Tensor, Any]:
        """Return the direction to go and the new state; the gradient by default."""
        return gradient, state

    def update(self, ball: Ball, iterate: Iterate) -> tuple[tf.Tensor, Any]:
        """Return the next point and state."""
        direction, state = self.direction(iterate.gradient, iterate.state)
        moved = iterate.x + self.step_length * ball.steepest(direction)
        return ball.project(moved), state

    # ---- what the hooks are driven by

    @property
    def passes(self) -> int:
        """Number of gradients per example."""
        return self.steps * self.restarts

    @property
    def step_length(self) -> float:
        """The step length in input units that is used."""
        return self.default_step_size() if self.step_size is None else self.step_size

    def search(
        self, logits_fn: LogitsFn, problem: Problem, seed: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Attack one batch and keep the strongest point; see `Attack.search`."""
        found, finite = ascend(
            self, logits_fn, problem, seed, remember=True, only_points=True
        )
        return problem.see(found.x), finite

    def perturb(
        self, logits_fn: LogitsFn, x: tf.Tensor, targets: tf.Tensor, *, seed: tf.Tensor
    ) -> tf.Tensor:
        """Return adversarial examples inside another function, as for training.

        Pure and traceable: eager, in a `tf.function`, under XLA, in a replica. No
        checks and, with one restart, no pass beyond the gradients: the result is the
        last iterate. Call it before opening the tape that trains the weights.

        Args:
            logits_fn: Maps inputs to float logits `(B, C)`; `C = 1` means one sigmoid
                unit.
            x: Float `(B, *S)` in `input_range`.
            targets: Float `(B, C)` from `class_targets`.
            seed: Int32 `(2,)`; another one at every training step.

        Returns:
            Like `x`, in the ball and the range, without gradient.

        Reference:
            arXiv 1706.06083 (adversarial training).

        Example:
            >>> import tensorflow as tf
            >>> from keras_jsigr.attacks import FGSM
            >>> x, targets = tf.constant([[0.5, 0.75]]), tf.constant([[0.0, 1.0]])
            >>> seed = tf.constant([0, 0])
            >>> attack = FGSM(epsilon=0.25)
            >>> attack.perturb(lambda x: x, x, targets, seed=seed).numpy().tolist()
            [[0.75, 0.5]]
        """
        if self.epsilon == 0.0:
            return tf.stop_gradient(x)
        problem = Problem(tf.stop_gradient(x), tf.stop_gradient(targets))
        remember = self.restarts > 1
        found, _ = ascend(self, logits_fn, problem, seed, remember=remember)
        return tf.stop_gradient(problem.see(found.x))
