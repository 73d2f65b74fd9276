"""The loop of all gradient attacks: restarts, each a climb."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import tensorflow as tf

from keras_jsigr.attacks.search.climb import Climb
from keras_jsigr.attacks.search.found import Found, nothing_found, stronger
from keras_jsigr.attacks.search.problem import Problem
from keras_jsigr.attacks.search.rows import put, true_rows
from keras_jsigr.attacks.search.seeds import fold_in
from keras_jsigr.core.logits import LogitsFn

if TYPE_CHECKING:
    from keras_jsigr.attacks.engine import GradientAttack


def ascend(
    attack: GradientAttack,
    logits_fn: LogitsFn,
    problem: Problem,
    seed: tf.Tensor,
    *,
    remember: bool,
    only_points: bool = False,
) -> tuple[Found, tf.Tensor]:
    """Run the method of `attack` on one batch.

    Args:
        attack: The settings and hooks.
        logits_fn: Maps inputs to float logits `(B, C)`.
        problem: The inputs, in the attack's range, and their labels.
        seed: Int32 `(2,)`.
        remember: Whether to return, per example, an earlier success where the last
            iterate is none, and the strongest restart; else the last iterate.
        only_points: Whether nobody asks for success and strength of the result, which
            may then be out of date: it can save a forward pass.

    Returns:
        The tuple of what was found, in the working dtype, and bool `(B,)`: all
        gradients were finite.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.attacks import PGD
        >>> from keras_jsigr.attacks.search.ascent import ascend
        >>> from keras_jsigr.attacks.search.problem import Problem
        >>> problem = Problem(tf.constant([[0.5, 0.75]]), tf.constant([[0.0, 1.0]]))
        >>> attack, seed = PGD(epsilon=0.25, steps=4), tf.constant([0, 0])
        >>> found, _ = ascend(attack, lambda x: x, problem, seed, remember=True)
        >>> found.x.numpy().tolist()
        [[0.75, 0.5]]
    """
    climb = Climb(attack, logits_fn, remember, only_points and attack.restarts == 1)
    origin = problem.origin
    known = nothing_found(origin)
    if remember and attack.random_start:
        # The iterates begin elsewhere: `x` itself may be misclassified.
        known = climb.judge(origin, problem)
    if attack.restarts == 1:
        return climb(problem, known, fold_in(seed, 0))

    def again(number: tf.Tensor, best: Found, finite: tf.Tensor) -> Any:
        seed_now = fold_in(seed, number)
        if not attack.early_stop:
            new, healthy = climb(problem, known, seed_now)
            return number + 1, stronger(new, best), finite & healthy
        rows = true_rows(~best.success)
        part = problem.take(rows)
        new, healthy = climb(part, nothing_found(part.origin), seed_now)
        best = put(stronger(new, best.take(rows)), rows, best)
        healthy &= tf.gather(finite, rows)
        finite = tf.tensor_scatter_nd_update(finite, rows[:, None], healthy)
        return number + 1, best, finite

    best = known if attack.early_stop else nothing_found(origin)
    start = (tf.constant(0), best, tf.ones_like(best.success))
    _, found, finite = tf.while_loop(
        lambda number, best, _: (
            (number < attack.restarts)
            & tf.reduce_any(~(best.success & attack.early_stop))
        ),
        again,
        start,
        maximum_iterations=attack.restarts,
    )
    return found, finite
