"""The attack of Carlini and Wagner: distance and margin minimised together by Adam."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import keras
import tensorflow as tf

from keras_jsigr.attacks.base import AttackContext
from keras_jsigr.attacks.gradient_attack import (
    expand_dims_like,
    nonzero_rows,
    scaled_gradient,
    scatter_rows,
    take_rows,
    zero_nonfinite,
)
from keras_jsigr.attacks.minimum_norm import Closest, MinimumNormAttack
from keras_jsigr.core import arguments

# No upper bound is known above this.
_OPEN = 1e10


class ConstantSearch(NamedTuple):
    """Hold the constant to try next and its bounds."""

    constant: tf.Tensor
    low: tf.Tensor
    high: tf.Tensor


def constant_start(like: tf.Tensor, constant: float) -> ConstantSearch:
    """Return the search before the first try."""
    zero = tf.zeros_like(like)
    return ConstantSearch(zero + constant, zero, zero + _OPEN)


def constant_next(search: ConstantSearch, success: tf.Tensor) -> ConstantSearch:
    """Narrow the bounds: less where the last constant succeeded, more where not."""
    low = tf.where(success, search.low, tf.maximum(search.low, search.constant))
    high = tf.where(success, tf.minimum(search.high, search.constant), search.high)
    more = tf.minimum(10.0 * search.constant, _OPEN)
    return ConstantSearch(tf.where(high < _OPEN, (low + high) / 2.0, more), low, high)


# Where the range ends, the variable would be infinite.
_INSIDE = 1.0 - 1e-6


def to_box(w: tf.Tensor, input_range: tuple[float, float]) -> tf.Tensor:
    """Compute `low + (high - low) * (tanh(w) + 1) / 2`."""
    low, high = input_range
    return tf.clip_by_value(low + (high - low) * (tf.tanh(w) + 1.0) / 2.0, low, high)


def from_box(x: tf.Tensor, input_range: tuple[float, float]) -> tf.Tensor:
    """Invert `to_box`; the ends of the range are moved inside by a millionth."""
    low, high = input_range
    middle, half = (low + high) / 2.0, (high - low) / 2.0
    return tf.math.atanh(tf.clip_by_value((x - middle) / half, -1.0, 1.0) * _INSIDE)


def box_slope(w: tf.Tensor, input_range: tuple[float, float]) -> tf.Tensor:
    """Compute the derivative of `to_box`, `(high - low) / 2 * (1 - tanh(w)^2)`."""
    low, high = input_range
    return (high - low) / 2.0 * (1.0 - tf.square(tf.tanh(w)))


_FIRST, _SECOND, _EPSILON = 0.9, 0.999, 1e-8


class Adam(NamedTuple):
    """Hold the variable and the running means of its gradient."""

    w: tf.Tensor
    mean: tf.Tensor
    square: tf.Tensor


def adam_start(w: tf.Tensor) -> Adam:
    """Return the state before the first step."""
    return Adam(w, tf.zeros_like(w), tf.zeros_like(w))


def adam_step(state: Adam, gradient: tf.Tensor, step: tf.Tensor, learning_rate: float) -> Adam:
    """Move against the gradient by about the learning rate per component."""
    # In float64: `1 - 0.999` alone would lose five digits.
    number = tf.cast(step + 1, tf.float64)
    first = tf.cast(1.0 - _FIRST**number, gradient.dtype)
    second = tf.cast(1.0 - _SECOND**number, gradient.dtype)
    mean = _FIRST * state.mean + (1.0 - _FIRST) * gradient
    square = _SECOND * state.square + (1.0 - _SECOND) * tf.square(gradient)
    # Both means begin at zero: they are too small by these shares.
    size = tf.sqrt(square / second) + _EPSILON
    return Adam(state.w - learning_rate * (mean / first) / size, mean, square)


# A constant is given up when the loss shrank by less than this share since the check.
_GAIN = 1e-4


class Descent(NamedTuple):
    """Hold what is carried from step to step."""

    adam: Adam
    loss: tf.Tensor
    checked: tf.Tensor
    running: tf.Tensor
    success: tf.Tensor
    finite: tf.Tensor

    def judged(self, fools: tf.Tensor, check: tf.Tensor) -> Descent:
        """Note who was fooled; on a check, who gained too little to go on."""
        gained = self.loss <= (1.0 - _GAIN) * self.checked
        return self._replace(
            running=self.running & (gained | ~check),
            checked=tf.where(check, self.loss, self.checked),
            success=self.success | fools,
        )


def descent_start(
    origin: tf.Tensor, input_range: tuple[float, float], running: tf.Tensor
) -> Descent:
    """Return the state before the first step, at the inputs."""
    largest = tf.fill(tf.shape(running), origin.dtype.max)
    no, yes = tf.zeros_like(running), tf.ones_like(running)
    adam = adam_start(from_box(origin, input_range))
    return Descent(adam, largest, largest, running, no, yes)


def descend(
    state: Descent,
    origin: tf.Tensor,
    uphill: tf.Tensor,
    margin: tf.Tensor,
    constant: tf.Tensor,
    *,
    input_range: tuple[float, float],
    step: tf.Tensor,
    learning_rate: float,
) -> Descent:
    """Take a step of Adam down distance plus weighted margin."""
    width = input_range[1] - input_range[0]
    axes = list(range(1, origin.shape.rank))
    w = state.adam.w
    uphill, healthy = zero_nonfinite(uphill)
    delta = (to_box(w, input_range) - origin) / width
    loss = tf.reduce_sum(tf.square(delta), axes) + constant * tf.maximum(-margin, 0.0)
    pull = expand_dims_like(tf.where(margin < 0, constant, tf.zeros_like(constant)), origin)
    gradient = (2.0 / width * delta - pull * uphill) * box_slope(w, input_range)
    return state._replace(
        adam=adam_step(state.adam, gradient, step, learning_rate),
        loss=loss,
        finite=state.finite & healthy,
    )


@keras.saving.register_keras_serializable(package="keras_jsigr")
@dataclass(frozen=True, kw_only=True)
class CarliniWagner(MinimumNormAttack):
    """Minimise distance and margin together, with the best weight between them.

    `min_w ||x' - x||_2^2 + c * max(confidence - margin(x'), 0)` with
    `x' = low + (high - low) (tanh(w) + 1) / 2`, by Adam (arXiv 1412.6980; the attack: arXiv
    1608.04644, V and VI-A). The margin is the largest other logit minus that of the class to leave
    or, with `targeted=True`, the logit of the class to reach minus the largest other. Distances
    count in widths of the range. The constant `c` is found by binary search for each example.
    Nothing is random. Other arguments are those of `MinimumNormAttack`.

    Args:
        norm: `"l2"`.
        steps: Largest number of steps of Adam for a constant, >= 1.
        searches: Number of constants tried, >= 1.
        initial_constant: The first of them, > 0.
        confidence: Margin that a point needs to count as fooling, >= 0, in logits.
        learning_rate: Length of Adam's steps in `w`, > 0.
        abort_early: Whether to give a constant up for an example where a tenth of the
            steps made the loss less than a ten-thousandth smaller.

    Example:
        >>> import numpy as np, keras_jsigr as kj
        >>> attack = kj.attacks.CarliniWagner(steps=50, searches=5, learning_rate=0.05)
        >>> attack(lambda x: x, np.array([[0.5, 0.75]]), [1]).round(2).tolist()
        [[0.63, 0.63]]
    """

    label: ClassVar[str] = "CW-L2"

    norm: str = "l2"
    steps: int = 1000
    searches: int = 9
    initial_constant: float = 1e-3
    confidence: float = 0.0
    learning_rate: float = 0.01
    abort_early: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        arguments.choice("norm", self.norm, ("l2",))
        arguments.choice("abort_early", self.abort_early, (False, True))
        self._normalize(arguments.count, "steps", "searches")
        self._normalize(arguments.number, "confidence", minimum=0.0)
        positive = ("initial_constant", "learning_rate")
        self._normalize(arguments.number, *positive, minimum=0.0, above=True)

    @property
    def passes(self) -> int:
        """Largest number of steps per example."""
        return self.steps * self.searches

    def margin(self, logits: tf.Tensor, context: AttackContext) -> tf.Tensor:
        """Return the margin beyond the confidence asked for, float32 `(B,)`."""
        return super().margin(logits, context) - self.confidence

    def approach(
        self, context: AttackContext, logits: tf.Tensor, known: Closest
    ) -> tuple[Closest, tf.Tensor]:
        """Minimise with all constants; see `MinimumNormAttack.approach`."""
        del logits

        def one_try(search: Any, best: Closest, finite: tf.Tensor) -> Any:
            best, state = self._minimise(context, search.constant, best)
            search = constant_next(search, state.success)
            return search, best, finite & state.finite

        start = constant_start(known.distance, self.initial_constant)
        _, best, finite = tf.while_loop(
            lambda search, best, finite: tf.reduce_any(self.unfinished(context, best)),
            one_try,
            (start, known, tf.ones_like(known.found)),
            maximum_iterations=self.searches,
        )
        return best, finite

    def _minimise(
        self, context: AttackContext, constant: Any, known: Closest
    ) -> tuple[Closest, Descent]:
        """Run Adam with one constant per example, each as long as it gains."""
        input_range = context.input_range

        def one_step(step: tf.Tensor, state: Descent, best: Closest) -> Any:
            rows = nonzero_rows(state.running)
            part, old = context.take(rows), take_rows(state, rows)
            point = to_box(old.adam.w, input_range)
            with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
                tape.watch(point)
                near, fools, margin = self.judge(part, point, take_rows(best, rows))
            new = descend(
                old,
                part.origin,
                scaled_gradient(tape, margin, point, tf.ones_like(margin)),
                tf.cast(margin, point.dtype),
                tf.gather(constant, rows),
                input_range=input_range,
                step=step,
                learning_rate=self.learning_rate,
            )
            check = (step % max(self.steps // 10, 1) == 0) & self.abort_early
            new = new.judged(fools, check)
            new = new._replace(running=new.running & self.unfinished(part, near))
            return step + 1, *scatter_rows((new, near), rows, (state, best))

        running = self.unfinished(context, known)
        start = descent_start(context.origin, input_range, running)
        _, state, best = tf.while_loop(
            lambda step, state, best: tf.reduce_any(state.running),
            one_step,
            (tf.constant(0), start, known),
            maximum_iterations=self.steps,
        )
        return best, state
