"""The descent of Carlini and Wagner's attack for one constant per example."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from keras_jsigr.attacks.minimum_norm.tanh_box import box_slope, from_box, to_box
from keras_jsigr.attacks.search.rows import like
from keras_jsigr.attacks.search.usable_part import usable_part
from keras_jsigr.core.adam import Adam, adam_start, adam_step

# A constant is given up when the loss shrank by less than this share since the check.
_GAIN = 1e-4


class Descent(NamedTuple):
    """Hold what is carried from step to step.

    Attributes:
        adam: The variable `w` and Adam's means.
        loss: Float `(B,)`, after the last step.
        checked: Like `loss`, at the last check.
        running: Bool `(B,)`: more steps are worth it.
        success: Bool `(B,)`: a fooling point was seen.
        finite: Bool `(B,)`: all gradients were finite.
    """

    adam: Adam
    loss: tf.Tensor
    checked: tf.Tensor
    running: tf.Tensor
    success: tf.Tensor
    finite: tf.Tensor

    def take(self, rows: tf.Tensor) -> Descent:
        """Return the state of some examples, int32 `(A,)`."""
        part: Descent = tf.nest.map_structure(lambda t: tf.gather(t, rows), self)
        return part

    def judged(self, fools: tf.Tensor, check: tf.Tensor) -> Descent:
        """Note who was fooled; on a check, who gained too little to go on.

        Args:
            fools: Bool `(B,)`.
            check: Bool scalar.
        """
        gained = self.loss <= (1.0 - _GAIN) * self.checked
        return self._replace(
            running=self.running & (gained | ~check),
            checked=tf.where(check, self.loss, self.checked),
            success=self.success | fools,
        )


def descent_start(
    origin: tf.Tensor, input_range: tuple[float, float], running: tf.Tensor
) -> Descent:
    """Return the state before the first step, at the inputs.

    Args:
        origin: Float32 or float64 `(B, *S)`, the inputs.
        input_range: `(low, high)` in input units.
        running: Bool `(B,)`: who takes part.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.attacks.minimum_norm.descent import descent_start
        >>> running = tf.constant([True])
        >>> state = descent_start(tf.fill((1, 1), 0.5), (0.0, 1.0), running)
        >>> state.adam.w.numpy().tolist()
        [[0.0]]
    """
    infinite = tf.fill(tf.shape(running), tf.constant(float("inf"), origin.dtype))
    no, yes = tf.zeros_like(running), tf.ones_like(running)
    adam = adam_start(from_box(origin, input_range))
    return Descent(adam, infinite, infinite, running, no, yes)


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
    """Take a step of Adam down distance plus weighted margin.

    The loss is `||delta||_2^2 + c * max(-margin, 0)`, with `delta` in widths of the
    range; its gradient reaches `w` through `to_box`.

    Args:
        state: Where the descent is.
        origin: Float32 or float64 `(B, *S)`, the inputs.
        uphill: Like `origin`, the gradient of the margin at the point of `state`.
        margin: Same dtype, `(B,)`, the margin there; negative where it does not fool.
        constant: Like `margin`, `c`.
        input_range: `(low, high)` in input units.
        step: Int32 scalar, from zero.
        learning_rate: Length of a step in `w`.

    Returns:
        The new state, with the loss before the step.

    Reference:
        arXiv 1608.04644, section VI-A.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.attacks.minimum_norm.descent import descend, descent_start
        >>> x, one = tf.fill((1, 1), 0.5), tf.constant([1.0])
        >>> state = descent_start(x, (0.0, 1.0), one > 0)
        >>> settings = dict(input_range=(0.0, 1.0), step=0, learning_rate=0.25)
        >>> new = descend(state, x, tf.ones((1, 1)), -one, one, **settings)
        >>> new.adam.w.numpy().round(4).tolist()
        [[0.25]]
    """
    width = input_range[1] - input_range[0]
    axes = list(range(1, origin.shape.rank))
    w = state.adam.w
    uphill, healthy = usable_part(uphill)
    delta = (to_box(w, input_range) - origin) / width
    loss = tf.reduce_sum(tf.square(delta), axes) + constant * tf.maximum(-margin, 0.0)
    pull = like(tf.where(margin < 0, constant, tf.zeros_like(constant)), origin)
    gradient = (2.0 / width * delta - pull * uphill) * box_slope(w, input_range)
    return state._replace(
        adam=adam_step(state.adam, gradient, step, learning_rate),
        loss=loss,
        finite=state.finite & healthy,
    )
