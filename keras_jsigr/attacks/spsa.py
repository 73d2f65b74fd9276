"""SPSA: a gradient from differences at random points, simultaneous perturbation."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import keras
import tensorflow as tf

from keras_jsigr.attacks.base import Access, AttackContext
from keras_jsigr.attacks.gradient_attack import GradientAttack, StepState
from keras_jsigr.attacks.losses import LossName
from keras_jsigr.core import arguments
from keras_jsigr.core.batching import chunked_sum, draws_at_once
from keras_jsigr.core.random import ALGORITHM, fold_in

# Losses of points (m * B, *S), the draws one after the other, and the points as seen.
Ask = Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]


def spsa_gradient(
    ask: Ask, x: tf.Tensor, *, pairs: int, delta: float, seed: tf.Tensor
) -> tf.Tensor:
    """Estimate the gradient of per-example losses from pairs of opposite points."""
    shape = tf.shape(x)
    examples = shape[0] if x.shape[0] is None else x.shape[0]

    def draw(first: tf.Tensor, size: Any) -> tf.Tensor:
        u = tf.random.stateless_uniform(
            tf.concat([[size], shape], axis=0), fold_in(seed, first), alg=ALGORITHM
        )
        step = tf.where(u < 0.5, tf.constant(delta, x.dtype), -delta)
        both = tf.stack([x + step, x - step])
        losses, seen = ask(tf.reshape(both, tf.concat([[-1], shape[1:]], axis=0)))
        a, b = tf.unstack(tf.reshape(seen, tf.shape(both)), num=2)
        up, down = tf.unstack(tf.reshape(losses, [2, size, examples]), num=2)
        rise = tf.cast(up - down, x.dtype)
        rise = tf.reshape(rise, tf.concat([[size], _per_example(shape)], axis=0))
        return tf.reduce_sum(tf.math.divide_no_nan(rise, a - b), axis=0)

    return chunked_sum(pairs, draws_at_once(2 * examples), draw, x) / pairs


def _per_example(shape: tf.Tensor) -> tf.Tensor:
    return tf.where(tf.range(tf.size(shape)) == 0, shape, 1)


Optimizer = Literal["adam", "steepest"]
_FIRST, _SECOND = 0.9, 0.999


@keras.saving.register_keras_serializable(package="keras_jsigr")
@dataclass(frozen=True, kw_only=True)
class SPSA(GradientAttack):
    """Follow a gradient that is estimated from the model's outputs (arXiv 1802.05666).

    `g = mean_k (L(x + delta v_k) - L(x - delta v_k)) / (2 delta
    v_k)` with random signs `v_k`; then `x <- project(x + step_size * m /
    sqrt(u))` with Adam's running means `m` of `g` and `u` of `g^2`. Neither a vanishing
    nor a shattered gradient stops it. Other arguments are those of `GradientAttack`.

    Args:
        samples: Number of points the model is asked about per step, even, >= 2; and
            once at the iterate.
        delta: Their distance from the iterate in each component, in input units;
            default one hundredth of the input range.
        optimizer: `"adam"`, or `"steepest"` for `x + step_size * sign(g)` under
            `"linf"` and `g / ||g||_2` for the sign under `"l2"`; default Adam under
            `"linf"`, as in the paper, and else the steepest step.
        loss: `"margin"`, the paper's, or any other.
        step_size: In input units; default `5 * epsilon / steps`; the change of most
            components under `"linf"`, about the step's length under the other norms.
        early_stop: As in `GradientAttack`; under XLA, restarts need it off.

    Example:
        >>> import numpy as np, keras_jsigr as kj
        >>> kj.attacks.SPSA(0.25)(lambda x: x, np.array([[0.5, 0.75]]), [1]).argmax(1)
        array([0])
    """

    access: ClassVar[Access] = "black box"
    stochastic: ClassVar[bool] = True

    loss: LossName = "margin"
    steps: int = 40
    samples: int = 128
    delta: float | None = None
    optimizer: Optimizer | None = None
    early_stop: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        self._normalize(arguments.count, "samples", minimum=2)
        self._normalize(arguments.number, "delta", minimum=0.0, above=True)
        if self.samples % 2:
            raise ValueError(
                f"`samples` is odd: got {self.samples}, expected an even number, as "
                f"points come in pairs. Pass {self.samples + 1}."
            )
        arguments.choice("optimizer", self.optimizer, (None, *get_args(Optimizer)))

    @property
    def passes(self) -> int:
        """Number of queries per example."""
        return (self.samples + 1) * self.steps * self.restarts

    @property
    def _adam(self) -> bool:
        default = "adam" if self.norm == "linf" else "steepest"
        return (self.optimizer or default) == "adam"

    def default_step_size(self, epsilon: Any) -> Any:
        """Return `5 * epsilon / steps`."""
        return 5.0 * epsilon / self.steps

    def start_state(self, context: AttackContext, x: tf.Tensor) -> Any:
        """Return no running means yet."""
        return (tf.zeros_like(x), tf.zeros_like(x)) if self._adam else ()

    def gradient(
        self, context: AttackContext, x: tf.Tensor, *, state: Any, seed: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor | None]:
        """Return the estimated gradient, and the logits at `x`."""
        low, high = context.input_range
        delta = 0.01 * (high - low) if self.delta is None else self.delta
        rows = tf.range(tf.shape(x)[0])

        def ask(points: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            again = tf.tile(rows, [tf.shape(points)[0] // tf.maximum(tf.size(rows), 1)])
            part = context.take(again)
            seen = part.to_model_input(tf.clip_by_value(points, low, high))
            logits = tf.cast(context.logits_fn(seen), tf.float32)
            return self.objective(logits, part), tf.cast(seen, x.dtype)

        gradient = spsa_gradient(ask, x, pairs=self.samples // 2, delta=delta, seed=seed)
        return gradient, context.logits(x)

    def update(self, context: AttackContext, now: StepState) -> tuple[tf.Tensor, Any]:
        """Return the next point and running means."""
        if not self._adam:
            return super().update(context, now)
        x, gradient = now.x, now.gradient
        first, second = now.state
        first = _FIRST * first + (1.0 - _FIRST) * gradient
        second = _SECOND * second + (1.0 - _SECOND) * tf.square(gradient)
        time = tf.cast(now.step + 1, x.dtype)
        m, u = first / (1.0 - _FIRST**time), second / (1.0 - _SECOND**time)
        # No constant added to the root, as it would have a scale; 0 / 0 counts as 0.
        direction = tf.math.divide_no_nan(m, tf.sqrt(u))
        d = math.prod(x.shape[1:])
        unit = {"linf": 1.0, "l2": d**-0.5, "l1": 1.0 / d}[self.norm]
        moved = x + self.step_length(context.epsilon) * unit * direction
        return now.ball.project(moved), (first, second)
