"""Where an attack on decisions starts: anywhere that fools the model."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from keras_jsigr.attacks.search.found import Found
from keras_jsigr.attacks.search.problem import Problem
from keras_jsigr.attacks.search.random_search import Propose, random_search
from keras_jsigr.attacks.search.seeds import ALGORITHM, fold_in

# Takes the problem of some examples and points; returns which fool, bool (A,), and the
# points as the model saw them.
Ask = Callable[[Problem, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]


def other_examples(
    x: tf.Tensor, decisions: tf.Tensor, targets: tf.Tensor, *, targeted: bool
) -> tuple[tf.Tensor, tf.Tensor]:
    """Choose, for each example, the nearest of the batch that the model puts elsewhere.

    Args:
        x: Float `(B, *S)`.
        decisions: Int64 `(B,)`, the model's classes; -1 where it names none.
        targets: Float32 `(B, C)`: the class to leave or, targeted, to reach.
        targeted: Which of both.

    Returns:
        The tuple of the chosen inputs, like `x`, and bool `(B,)`: there was one.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.attacks.queries.starting_points import other_examples
        >>> x, rows = tf.constant([[0.0], [0.1], [0.9]]), tf.eye(2)
        >>> targets = tf.gather(rows, [0, 0, 1])
        >>> y, there = other_examples(x, tf.argmax(targets, 1), targets, targeted=False)
        >>> y.numpy().round(1).ravel().tolist()
        [0.8999999761581421, 0.8999999761581421, 0.10000000149011612]
    """
    classes = tf.argmax(targets, axis=-1, output_type=decisions.dtype)
    fits = (classes[:, None] == decisions[None, :]) == targeted
    flat = tf.reshape(x, [tf.shape(x)[0], -1])
    squares = tf.reduce_sum(tf.square(flat), axis=1)
    # Without |x_b|^2, which is the same for all candidates.
    distance = squares[None, :] - 2.0 * tf.matmul(flat, flat, transpose_b=True)
    distance = tf.where(fits, distance, float("inf"))
    chosen = tf.gather(x, tf.argmin(distance, axis=1))
    return chosen, tf.reduce_any(fits, axis=1)


def noise_that_fools(
    ask: Ask,
    problem: Problem,
    start: Found,
    *,
    input_range: tuple[float, float],
    tries: int,
    seed: tf.Tensor,
) -> Found:
    """Draw uniform noise for the examples that have no point yet, until it fools.

    Args:
        ask: Tells which points fool.
        problem: The batch.
        start: The points that are known already.
        input_range: `(low, high)` of the noise.
        tries: The largest number of draws per example.
        seed: Int32 `(2,)`.

    Returns:
        `start`, completed where a draw fooled the model.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.attacks.search.found import nothing_found
        >>> from keras_jsigr.attacks.search.problem import Problem
        >>> from keras_jsigr.attacks.queries.starting_points import noise_that_fools
        >>> problem, seed = Problem(tf.zeros((1, 1)), tf.eye(1)), tf.constant([0, 0])
        >>> def ask(part, x):
        ...     return x[:, 0] > 0.5, x
        >>> start, unit = nothing_found(problem.x), (0.0, 1.0)
        >>> found = noise_that_fools(
        ...     ask, problem, start, input_range=unit, tries=50, seed=seed
        ... )
        >>> bool(found.x[0, 0] > 0.5)
        True
    """
    low, high = input_range

    def look(part: Problem, x: tf.Tensor) -> Found:
        fools, seen = ask(part, x)
        return Found(seen, fools, tf.zeros(tf.shape(fools)))

    def moves(part: Problem) -> Propose:
        def propose(x: tf.Tensor, rows: tf.Tensor, query: tf.Tensor) -> tf.Tensor:
            now = fold_in(seed, query)
            return tf.random.stateless_uniform(
                tf.shape(x), now, low, high, dtype=x.dtype, alg=ALGORITHM
            )

        return propose

    return random_search(look, problem, start, moves, tries)
