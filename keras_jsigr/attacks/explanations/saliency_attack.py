"""The same decision for other reasons: move the saliency map, keep the class."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import keras
import tensorflow as tf

from keras_jsigr.attacks.attack import Attack
from keras_jsigr.attacks.balls.ball import BALLS
from keras_jsigr.attacks.explanations.map_mass import (
    flat_map,
    mass_share,
    odds_gradient,
)
from keras_jsigr.attacks.objectives.losses import LossName, misclassified
from keras_jsigr.attacks.regions.top_share import top_share
from keras_jsigr.attacks.search.problem import Problem
from keras_jsigr.attacks.search.usable_part import usable_part
from keras_jsigr.core import settings
from keras_jsigr.core.logits import LogitsFn
from keras_jsigr.core.scores import predicted_targets


@keras.saving.register_keras_serializable(package="keras_jsigr")
@dataclass(frozen=True, kw_only=True)
class SaliencyAttack(Attack):
    """Move the mass of the gradient map away from its top pixels, the class kept.

    `x_{t+1} = project(x_t - step_size * sign(dM/dx))`, where `M` is the share of the
    map `sum_channels |d s / d x|` that lies on the `top` share of the pixels of the map
    at `x`, and `s` the log probability of the class decided for at `x`. Where a step
    lost the class, the next one goes back up `s`. Returned is, per example, the point
    of the smallest `M` among those decided as `x` is; `x` itself is one of them.

    This is no attack on the decision: `y` is not used, and there is no `targeted`. It
    needs second derivatives and hardly moves a ReLU network's map without them: attack
    `BorrowedCurvature(model, with_smooth_activations(model, "softplus"))`, which has
    the outputs and maps of the model itself.

    Args:
        epsilon: Radius in input units, >= 0.
        top: Share of the pixels whose mass is moved, above 0, below 1.
        steps: Number of steps, >= 1.
        step_size: In input units; default `2.5 * epsilon / steps`.
        norm: `"linf"`, `"l2"` or `"l1"`.
        input_range: `(low, high)` of valid inputs.
        batch_size: Number of examples worked on at once.
        seed: Not used; nothing is random.
        verbose: 1 shows a progress bar, 0 none, `"auto"` one for long runs.

    Raises:
        TypeError: If a setting has the wrong type.
        ValueError: If a setting is out of range.

    Reference:
        arXiv 1710.10547 (the top-k attack).

    Example:
        >>> import numpy as np, tensorflow as tf
        >>> from keras_jsigr.attacks.explanations.saliency_attack import SaliencyAttack
        >>> model = lambda x: tf.stack([x[:, 0] ** 2 + x[:, 1] ** 2, -x[:, 0]], 1)
        >>> x = np.array([[0.8, 0.7]], "float32")  # |gradient|: 2 x_0 + 1, 2 x_1
        >>> SaliencyAttack(epsilon=0.25, top=0.5)(model, x).round(3).tolist()
        [[0.550000011920929, 0.949999988079071]]
    """

    loss: LossName = field(default="cross_entropy", init=False, repr=False)
    targeted: bool = field(default=False, init=False, repr=False)
    top: float = 0.1
    steps: int = 50
    step_size: float | None = None

    def __post_init__(self) -> None:
        """Check the settings and bring them to their plain Python types."""
        super().__post_init__()
        self._set("top", settings.share("top", self.top, ends="()"))
        self._set("steps", settings.count("steps", self.steps))
        if self.step_size is not None:
            step_size = settings.number(
                "step_size", self.step_size, minimum=0.0, above=True
            )
            self._set("step_size", step_size)

    @property
    def passes(self) -> int:
        """Number of gradients per example: of the map, and of its mass."""
        return 2 * self.steps

    def search(
        self, logits_fn: LogitsFn, problem: Problem, seed: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Attack the maps of one batch; see `Attack.search`."""
        del seed
        origin = problem.origin
        ball = BALLS[self.norm](origin, self.epsilon, self.input_range, problem.region)
        length = self.step_size or 2.5 * self.epsilon / self.steps
        decided = predicted_targets(problem.logits(logits_fn, origin))
        problem = problem._replace(targets=decided)
        gradient, _ = odds_gradient(logits_fn, origin, problem)
        pixels = top_share(flat_map(gradient), self.top)

        def look(x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            """Return mass, gradient of the odds, and where the class is lost."""
            gradient, logits = odds_gradient(logits_fn, x, problem)
            lost = misclassified(logits, problem.targets)
            return mass_share(flat_map(gradient), pixels), gradient, lost

        def keep(x: tf.Tensor, mass: tf.Tensor, lost: tf.Tensor, best: Any) -> Any:
            better = ~lost & (mass < best[1])
            where = tf.ensure_shape(tf.where(_rows(better, x), x, best[0]), x.shape)
            return where, tf.where(better, mass, best[1])

        def one_step(step: tf.Tensor, x: tf.Tensor, best: Any, finite: Any) -> Any:
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(x)
                mass, back, lost = look(x)
            best = keep(x, mass, lost, best)
            uphill = tape.gradient(mass, x, unconnected_gradients="zero")
            direction = tf.where(_rows(lost, x), back, -uphill)
            direction, healthy = usable_part(direction)
            finite &= healthy
            moved = x + length * ball.steepest(direction)
            return step + 1, ball.project(moved), best, finite

        mass = mass_share(flat_map(gradient), pixels)
        start = (tf.constant(0), origin, (origin, mass), tf.ones_like(mass, tf.bool))
        _, x, best, finite = tf.while_loop(
            lambda step, *_: step < self.steps,
            one_step,
            start,
            maximum_iterations=self.steps,
        )
        mass, _, lost = look(x)
        return problem.see(keep(x, mass, lost, best)[0]), finite


def _rows(flags: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
    return tf.reshape(flags, [-1] + [1] * (x.shape.rank - 1))
