"""The attack of someone who does not think of saturation."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from keras_jsigr.attacks.balls.ball import BALLS
from keras_jsigr.attacks.objectives.losses import attack_loss, misclassified
from keras_jsigr.attacks.search.rounding import working_dtype
from keras_jsigr.attacks.search.usable_part import usable_part
from keras_jsigr.core.logits import LogitsFn

STEPS = 20


def naive_loss(logits: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
    """Compute softmax cross entropy in float32, whose gradient vanishes if it is small.

    Args:
        logits: Float `(B, C)`.
        targets: Float32 `(B, C)`.

    Returns:
        Float32 `(B,)`.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.evaluation.masking.naive_attack import naive_loss
        >>> z = tf.Variable([[200.0, 0.0]])
        >>> with tf.GradientTape() as tape:
        ...     loss = naive_loss(z, tf.constant([[1.0, 0.0]]))
        >>> tape.gradient(loss, z).numpy().tolist()
        [[0.0, 0.0]]
    """
    return tf.nn.softmax_cross_entropy_with_logits(targets, tf.cast(logits, tf.float32))


def naive_attack(
    logits_fn: LogitsFn,
    x: tf.Tensor,
    targets: tf.Tensor,
    *,
    epsilon: Any,
    scale: Any,
    norm: str = "linf",
    input_range: tuple[float, float] = (0.0, 1.0),
    margin: Any = 0.0,
) -> tf.Tensor:
    """Take 20 projected gradient steps from `x` and tell which examples resist.

    The loss is `naive_loss(scale * logits)`, or the margin; the step size is
    `2.5 * epsilon / 20`. No random start: where there is no gradient, it stays at `x`.

    Args:
        logits_fn: Maps inputs to float logits `(B, C)`.
        x: Float `(B, *S)`.
        targets: Float32 `(B, C)`.
        epsilon: Radius in input units, a number or scalar tensor.
        scale: What the logits are multiplied by, a number or scalar tensor.
        norm: Of the perturbation.
        input_range: `(low, high)` of valid inputs.
        margin: Zero for cross entropy, one for the margin instead, a number or scalar
            tensor.

    Returns:
        Bool `(B,)`: right at every point visited.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.evaluation.masking.naive_attack import naive_attack
        >>> x, target = tf.constant([[0.6, 0.5]]), tf.constant([[1.0, 0.0]])
        >>> for scale in (1.0, 1e4):
        ...     resists = naive_attack(lambda x: x, x, target, epsilon=0.1, scale=scale)
        ...     print(resists.numpy())
        [False]
        [ True]
    """
    origin = tf.cast(x, working_dtype(x.dtype))
    epsilon = tf.cast(epsilon, origin.dtype)
    ball = BALLS[norm](origin, epsilon, input_range)
    length = 2.5 * epsilon / STEPS

    def logits_at(point: tf.Tensor) -> tf.Tensor:
        return tf.cast(logits_fn(tf.cast(point, x.dtype)), tf.float32)

    def step(number: tf.Tensor, point: tf.Tensor, right: tf.Tensor) -> Any:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(point)
            logits = logits_at(point)
            loss = tf.where(
                tf.cast(margin, tf.bool),
                attack_loss(logits, targets, "margin"),
                naive_loss(scale * logits, targets),
            )
        gradient = tf.ensure_shape(tape.gradient(loss, point), point.shape)
        # NaN would lead to points that are wrong, and outside of everything.
        gradient, _ = usable_part(gradient)
        right &= ~misclassified(logits, targets)
        return number + 1, ball.project(point + length * ball.steepest(gradient)), right

    start = (tf.constant(0), origin, tf.ones_like(targets[:, 0], tf.bool))
    _, point, right = tf.while_loop(lambda number, *_: number < STEPS, step, start)
    return right & ~misclassified(logits_at(point), targets)
