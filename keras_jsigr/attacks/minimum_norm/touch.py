"""Move fooling points to where the boundary is nearest to the input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from keras_jsigr.attacks.minimum_norm.boundary import nearest_boundary, value_at
from keras_jsigr.attacks.minimum_norm.closest import Closest
from keras_jsigr.attacks.minimum_norm.linear_projection import linear_projection
from keras_jsigr.attacks.search.problem import Problem
from keras_jsigr.core.logits import LogitsFn

# How far beyond the plane the points are, as shares of the way to it: far enough to
# fool where the boundary bends, then as near as float32 can tell.
_BEYOND = (3e-2, 1e-3, 1e-4)


def touch(
    judge: Callable[[tf.Tensor, Closest], Closest],
    logits_fn: LogitsFn,
    problem: Problem,
    known: Closest,
    input_range: tuple[float, float],
    norm: str,
) -> Closest:
    """Project the inputs onto the boundary, linearized at fooling points.

    A step across the boundary that is clipped to the range leaves its shortest way;
    going from the input straight to the nearest point of the plane, within the range,
    repairs that. Where the boundary is a plane, the result is the closest point.

    Args:
        judge: Takes points and the closest known; returns the closest now.
        logits_fn: Maps inputs to float logits `(B, C)`.
        problem: The batch.
        known: Points that fool, and their distances.
        input_range: `(low, high)` in input units.
        norm: `"linf"`, `"l2"` or `"l1"`.

    Returns:
        Points at least as close as those known.

    Reference:
        arXiv 1907.02044, section 3.1 (the projection).

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.attacks.minimum_norm.closest import Closest, closer
        >>> from keras_jsigr.attacks.search.problem import Problem
        >>> from keras_jsigr.attacks.minimum_norm.touch import touch
        >>> x = tf.constant([[0.5, 0.75]])
        >>> problem = Problem(x, tf.constant([[0.0, 1.0]]))
        >>> known = Closest(tf.constant([[1.0, 0.75]]), tf.constant([0.5]))
        >>> judge = lambda z, known: closer(known, z, z[:, 0] > z[:, 1], x, "l2")
        >>> near = touch(judge, lambda x: x, problem, known, (0.0, 1.0), "l2")
        >>> near.x.numpy().round(3).tolist()
        [[0.625, 0.625]]
    """
    origin = problem.origin

    def body(turn: tf.Tensor, best: Closest) -> Any:
        plane = nearest_boundary(logits_fn, problem, best.x, None, input_range, norm)
        gap = value_at(plane, best.x, origin)
        beyond = tf.gather(tf.constant(_BEYOND, gap.dtype), turn) * tf.abs(gap)
        target = linear_projection(
            origin, plane.weights, gap - beyond, input_range, norm
        )
        return turn + 1, judge(target, best)

    closest: Closest
    _, closest = tf.while_loop(
        lambda turn, best: tf.size(best.distance) > 0,
        body,
        (tf.constant(0), known),
        maximum_iterations=len(_BEYOND),
    )
    return closest
