"""Random search: propose a point per example, keep it if it is stronger."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from keras_jsigr.attacks.search.found import Found, choose
from keras_jsigr.attacks.search.problem import Problem
from keras_jsigr.attacks.search.rows import any_number_of_rows, put, true_rows

# The candidates for some examples, from their points so far, their numbers in the
# batch, int32 (A,), and the number of the query.
Propose = Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]
# One eighth of the examples may be done before the others move on without them:
# gathering costs about as much as proposing, the model's passes much more.
_DONE = 8


def random_search(
    look: Callable[[Problem, tf.Tensor], Found],
    problem: Problem,
    start: Found,
    moves: Callable[[Problem], Propose],
    queries: int,
) -> Found:
    """Improve points by trying proposals, until each fools the model or queries end.

    Examples whose point fools the model are not touched any more. The others are
    gathered whenever an eighth of those under way is done, so that the model is asked
    about hardly any example in vain.

    Args:
        look: Judges points of a problem with one query, as `judge` does.
        problem: The batch.
        start: Where to start, of the whole batch.
        moves: Returns, for the problem of some examples, what proposes their points.
        queries: The largest number of queries per example.

    Returns:
        The strongest points, per example.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.attacks.search.found import Found
        >>> from keras_jsigr.attacks.search.problem import Problem
        >>> from keras_jsigr.attacks.search.random_search import random_search
        >>> problem = Problem(tf.zeros((2, 1)), tf.zeros((2, 2)))
        >>> def look(part, x):
        ...     return Found(x, x[:, 0] > 3.0, x[:, 0])
        >>> def moves(part):
        ...     return lambda x, rows, query: x + 1.0
        >>> start = look(problem, tf.constant([[0.0], [5.0]]))
        >>> random_search(look, problem, start, moves, 9).x.numpy().tolist()
        [[4.0], [5.0]]
    """

    def with_the_rest(query: tf.Tensor, best: Found) -> Any:
        rows = true_rows(~best.success)
        part = problem.take(rows)
        propose = moves(part)

        def ask(query: tf.Tensor, found: Found) -> Any:
            new = look(part, tf.ensure_shape(propose(found.x, rows, query), x_shape))
            better = new.success | (new.value > found.value)
            return query + 1, choose(better & ~found.success, new, found)

        def enough_left(query: tf.Tensor, found: Found) -> tf.Tensor:
            done = tf.math.count_nonzero(found.success, dtype=tf.int32)
            return (query < queries) & ((done == 0) | (done * _DONE < tf.size(rows)))

        x_shape = tf.TensorShape([None, *problem.x.shape[1:]])
        begin = (query, best.take(rows))
        query, found = tf.while_loop(
            enough_left, ask, begin, shape_invariants=any_number_of_rows(begin)
        )
        return query, put(found, rows, best)

    def any_left(query: tf.Tensor, best: Found) -> tf.Tensor:
        return (query < queries) & tf.reduce_any(~best.success)

    begin = (tf.constant(0), start)
    end: tuple[tf.Tensor, Found] = tf.while_loop(
        any_left, with_the_rest, begin, shape_invariants=any_number_of_rows(begin)
    )
    return end[1]
