"""Random noise: what any model should withstand, and a check of other attacks."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import keras
import tensorflow as tf

from keras_jsigr.attacks.base import Access, Attack, AttackContext
from keras_jsigr.attacks.gradient_attack import BestPoint, score_points
from keras_jsigr.attacks.losses import LossName
from keras_jsigr.attacks.norms import Ball
from keras_jsigr.attacks.square import Propose, random_search
from keras_jsigr.core import arguments
from keras_jsigr.core.random import ALGORITHM, fold_in


@dataclass(frozen=True, kw_only=True)
class Noise(Attack):
    """Draw points of the ball and keep the first that fools the model."""

    access: ClassVar[Access] = "noise"

    loss: LossName = "margin"
    draws: int = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        self._normalize(arguments.count, "draws")

    @property
    def passes(self) -> int:
        """Number of queries per example."""
        return self.draws + 1

    @abstractmethod
    def draw(self, context: AttackContext, ball: Ball, seed: tf.Tensor) -> tf.Tensor:
        """Return a random point per example; it is projected onto the ball."""

    def search(self, context: AttackContext) -> tuple[tf.Tensor, tf.Tensor]:
        """Attack one batch; see `Attack.search`."""

        def look(part: AttackContext, x: tf.Tensor) -> BestPoint:
            return score_points(self, part, x)

        def moves(part: AttackContext) -> Propose:
            ball = part.ball

            def propose(x: tf.Tensor, rows: tf.Tensor, query: tf.Tensor) -> tf.Tensor:
                return ball.project(self.draw(part, ball, fold_in(part.seed, query)))

            return propose

        clean = look(context, context.origin)
        best = random_search(look, context, clean, moves, self.draws)
        return context.to_model_input(best.x), tf.ones_like(best.success)


@keras.saving.register_keras_serializable(package="keras_jsigr")
@dataclass(frozen=True, kw_only=True)
class UniformNoise(Noise):
    """Draw points uniformly from the ball and keep the first that fools the model.

    `x_adv = x + n` with `n` uniform in `||n|| <= epsilon`, cut with the range. A model
    that noise fools where attacks fail hides its gradients (arXiv 1902.06705). Other
    arguments are those of `Attack`.

    Args:
        draws: Number of points per example, >= 1.
        loss: What ranks points that do not fool the model.

    Example:
        >>> import numpy as np, keras_jsigr as kj
        >>> attack, x = kj.attacks.UniformNoise(0.25), np.array([[0.5, 0.6]])
        >>> attack(lambda x: x, x, [1]).argmax(1)
        array([0])
    """

    label: ClassVar[str] = "uniform noise"

    def draw(self, context: AttackContext, ball: Ball, seed: tf.Tensor) -> tf.Tensor:
        """Return a point of the ball; see `Noise.draw`."""
        return ball.sample(seed)


@keras.saving.register_keras_serializable(package="keras_jsigr")
@dataclass(frozen=True, kw_only=True)
class GaussianNoise(Noise):
    """Add Gaussian noise, projected onto the ball, and keep what fools the model.

    `x_adv = project(x + sigma * n)` with `n` standard normal (arXiv 1902.06705). Other
    arguments are those of `UniformNoise`.

    Args:
        sigma: Standard deviation in input units, > 0; by default such that the noise is
            about as long as the radius: over `d` components, `epsilon / sqrt(d)` under
            `"l2"`, `epsilon / (d * sqrt(2 / pi))` under `"l1"` and
            `epsilon / sqrt(2 * log(2 * d))` under `"linf"`.

    Example:
        >>> import numpy as np, keras_jsigr as kj
        >>> attack, x = kj.attacks.GaussianNoise(0.25), np.array([[0.5, 0.6]])
        >>> attack(lambda x: x, x, [1]).argmax(1)
        array([0])
    """

    label: ClassVar[str] = "Gaussian noise"

    sigma: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self._normalize(arguments.number, "sigma", minimum=0.0, above=True)

    def draw(self, context: AttackContext, ball: Ball, seed: tf.Tensor) -> tf.Tensor:
        """Return the noisy inputs; see `Noise.draw`."""
        x = ball.origin
        noise = tf.random.stateless_normal(tf.shape(x), seed, dtype=x.dtype, alg=ALGORITHM)
        return x + self._deviation(x, context) * noise

    def _deviation(self, x: tf.Tensor, context: AttackContext) -> tf.Tensor:
        if self.sigma is not None:
            return tf.constant(self.sigma, x.dtype)
        free = tf.ones_like(x[:1]) if context.region is None else context.region
        axes = list(range(1, x.shape.rank))
        d = tf.maximum(tf.reduce_sum(free, axes, keepdims=True), 1.0)
        # How long noise of deviation one is to be expected.
        lengths = {
            "linf": tf.sqrt(2.0 * tf.math.log(2.0 * d)),
            "l2": tf.sqrt(d),
            "l1": math.sqrt(2.0 / math.pi) * d,
        }
        return context.epsilon / lengths[self.norm]
