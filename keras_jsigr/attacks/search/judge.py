"""How strong a point is: one look of the model."""

from __future__ import annotations

import tensorflow as tf

from keras_jsigr.attacks.attack import Attack
from keras_jsigr.attacks.objectives.losses import misclassified
from keras_jsigr.attacks.search.found import Found
from keras_jsigr.attacks.search.problem import Problem
from keras_jsigr.core.logits import LogitsFn


def judge(
    attack: Attack,
    logits_fn: LogitsFn,
    problem: Problem,
    x: tf.Tensor,
    logits: tf.Tensor | None = None,
) -> Found:
    """Tell how strong points are.

    Args:
        attack: For its loss and whether it is targeted.
        logits_fn: Maps inputs to logits `(B, C)`.
        problem: The inputs and labels of these examples.
        x: Like `problem.origin`.
        logits: Float32 `(B, C)` at `x`, if they are known already.

    Returns:
        `x`, whether it fools the model, and the loss to drive up.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.attacks import FGSM
        >>> from keras_jsigr.attacks.search.judge import judge
        >>> from keras_jsigr.attacks.search.problem import Problem
        >>> problem = Problem(tf.constant([[1.0, 3.0]]), tf.constant([[1.0, 0.0]]))
        >>> attack = FGSM(epsilon=1.0, loss="margin")
        >>> found = judge(attack, lambda x: x, problem, problem.origin)
        >>> found.success.numpy().tolist(), found.value.numpy().tolist()
        ([True], [2.0])
    """
    if logits is None:
        logits = problem.logits(logits_fn, x)
    wrong = misclassified(logits, problem.targets)
    success = ~wrong if attack.targeted else wrong
    value = attack.strength(logits, problem)
    # Nothing would be larger than NaN.
    value = tf.where(tf.math.is_nan(value), float("-inf"), value)
    return Found(x, success, value)
