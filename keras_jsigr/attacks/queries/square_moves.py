"""The moves of the Square attack, per norm: how to start and what to propose."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np
import tensorflow as tf

from keras_jsigr.attacks.balls.ball import BALLS, Ball
from keras_jsigr.attacks.queries.square_bumps import dipole_table, tiles
from keras_jsigr.attacks.queries.square_carry import carry, spread
from keras_jsigr.attacks.queries.square_draws import Windows
from keras_jsigr.attacks.queries.square_linf import paint, stripes
from keras_jsigr.attacks.queries.square_windows import offsets
from keras_jsigr.attacks.search.problem import Problem
from keras_jsigr.attacks.search.random_search import Propose
from keras_jsigr.attacks.search.seeds import ALGORITHM, fold_in

if TYPE_CHECKING:
    from keras_jsigr.attacks.queries.square import Square


class Moves(Protocol):
    """What the Square attack asks of a norm."""

    def __init__(self, attack: Square, problem: Problem, seed: tf.Tensor) -> None:
        """Prepare for one batch and restart."""

    def start(self) -> tf.Tensor:
        """Return the first points of the whole batch."""

    def for_part(self, part: Problem) -> Propose:
        """Return what proposes points for some examples of the batch."""


def _ball(attack: Square, problem: Problem) -> Ball:
    return BALLS[attack.norm](
        problem.origin, attack.epsilon, attack.input_range, problem.region
    )


class LinfMoves:
    """Paint stripes, then windows, at the edge of the box."""

    def __init__(self, attack: Square, problem: Problem, seed: tf.Tensor) -> None:
        self._attack, self._problem, self._seed = attack, problem, fold_in(seed, 0)
        self._windows = Windows(attack, problem, fold_in(seed, 1), odd=False)

    def _box(self, problem: Problem) -> tuple[tf.Tensor, tf.Tensor]:
        ball, far = _ball(self._attack, problem), 2.0 * self._attack.epsilon
        lower, upper = ball.project(ball.origin - far), ball.project(ball.origin + far)
        return self._windows.images(lower), self._windows.images(upper)

    def start(self) -> tf.Tensor:
        """Return the stripes."""
        examples, (height, width) = tf.shape(self._problem.x)[0], self._windows.extent
        shape = [examples, width if width > 1 else height, self._windows.channels]
        u = tf.random.stateless_uniform(shape, self._seed, alg=ALGORITHM)
        painted = stripes(u, *self._box(self._problem))
        return tf.reshape(painted, tf.shape(self._problem.x))

    def for_part(self, part: Problem) -> Propose:
        """Return what paints a window."""
        windows, weights = self._windows, self._windows.weights(part)
        lower, upper = self._box(part)

        def propose(x: tf.Tensor, rows: tf.Tensor, query: tf.Tensor) -> tf.Tensor:
            u = windows.draw(query, rows, 4 + 2 * windows.channels + 1)
            sides = tf.constant(windows.sides)[windows.stage(query)]
            corners = windows.place(u[:, :4], weights, sides)
            inside, _, _ = offsets(corners, sides, windows.extent)
            painted = paint(windows.images(x), lower, upper, inside, u[:, 4:])
            return tf.reshape(painted, tf.shape(x))

        return propose


class PowerMoves:
    """Spread dipoles on a grid, then carry the length of one window into another."""

    def __init__(self, attack: Square, problem: Problem, seed: tf.Tensor) -> None:
        self._attack, self._problem, self._seed = attack, problem, fold_in(seed, 0)
        self._windows = Windows(attack, problem, fold_in(seed, 1), odd=True)
        self._power = {"l1": 1, "l2": 2}[attack.norm]
        table = dipole_table(self._windows.sides, self._windows.extent)
        self._table = tf.constant(table, problem.origin.dtype)

    def start(self) -> tf.Tensor:
        """Return dipoles on a grid, scaled to the radius."""
        problem, windows = self._problem, self._windows
        above, beside, number = tiles(windows.extent)
        shape = [tf.shape(problem.x)[0], int(number.max()) + 1, 1 + windows.channels]
        u = tf.random.stateless_uniform(shape, self._seed, alg=ALGORITHM)
        # The margin has no dipole: any tile's numbers will do there.
        u = tf.gather(u, np.maximum(number, 0), axis=1)
        shapes = tf.where(u[..., :1] < 0.5, above[..., None], beside[..., None])
        delta = tf.cast(tf.where(u[..., 1:] < 0.5, shapes, -shapes), self._table.dtype)
        if problem.region is not None:
            delta *= windows.images(problem.region)
        delta = spread(delta, self._attack.epsilon, self._power)
        ball = _ball(self._attack, problem)
        return ball.project(ball.origin + tf.reshape(delta, tf.shape(problem.x)))

    def for_part(self, part: Problem) -> Propose:
        """Return what carries length from window to window."""
        windows, weights = self._windows, self._windows.weights(part)
        ball, (height, width) = _ball(self._attack, part), self._windows.extent

        def propose(x: tf.Tensor, rows: tf.Tensor, query: tf.Tensor) -> tf.Tensor:
            u = windows.draw(query, rows, 9 + windows.channels)
            stage = windows.stage(query)
            sides = tf.constant(windows.sides)[stage]
            corners = windows.place(u[:, :4], weights, sides)
            inside, down, right = offsets(corners, sides, windows.extent)
            others = windows.place(u[:, 4:8], weights, sides)
            other, _, _ = offsets(others, sides, windows.extent)
            # The last entry of the table is zero and stands for all pixels outside.
            across = tf.cast(u[:, 8:9, None] < 0.5, tf.int32)
            entry = (across * height + down) * width + right
            entry = tf.where(inside, entry, 2 * height * width)
            shape = tf.gather(self._table[stage], entry)
            window, other = inside[..., None], other[..., None]
            if part.region is not None:
                free = windows.images(part.region) > 0
                window, other = window & free, other & free
            delta = carry(
                windows.images(x - ball.origin),
                shape,
                window,
                other,
                tf.cast(tf.where(u[:, 9:] < 0.5, 1.0, -1.0), x.dtype),
                epsilon=self._attack.epsilon,
                power=self._power,
            )
            return ball.project(ball.origin + tf.reshape(delta, tf.shape(x)))

        return propose


MOVES: dict[str, type[Moves]] = {
    "linf": LinfMoves,
    "l2": PowerMoves,
    "l1": PowerMoves,
}
