"""The random numbers and window sizes of the Square attack on one batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import tensorflow as tf

from keras_jsigr.attacks.queries.square_schedule import all_window_sides, stage
from keras_jsigr.attacks.queries.square_windows import (
    as_image,
    place_windows,
    place_windows_at,
)
from keras_jsigr.attacks.search.problem import Problem
from keras_jsigr.attacks.search.seeds import ALGORITHM, fold_in

if TYPE_CHECKING:
    from keras_jsigr.attacks.queries.square import Square


class Windows:
    """Draw windows; every example has its own stream of random numbers.

    Args:
        attack: The settings.
        problem: The whole batch.
        seed: Int32 `(2,)`, of the windows of one restart.
        odd: Whether the sides of the windows are odd and at least three.

    Attributes:
        extent: `(H, W)` of the images in pixels.
        channels: `D`.
        sides: Height and width of the windows of every stage.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.attacks.search.problem import Problem
        >>> from keras_jsigr.attacks.queries.square import Square
        >>> from keras_jsigr.attacks.queries.square_draws import Windows
        >>> problem = Problem(tf.zeros((2, 9, 9, 3)), tf.zeros((2, 5)))
        >>> windows = Windows(Square(epsilon=0.1), problem, [0, 0], odd=False)
        >>> windows.sides[0], windows.extent, windows.channels
        ((8, 8), (9, 9), 3)
    """

    def __init__(
        self, attack: Square, problem: Problem, seed: Any, *, odd: bool
    ) -> None:
        height, width, self.channels = as_image(tuple(problem.x.shape[1:]))
        self.extent = height, width
        self.sides = all_window_sides(attack.p_init, self.extent, odd=odd)
        self._seed, self._queries = seed, attack.queries
        self._examples = tf.shape(problem.x)[0]

    def draw(self, query: tf.Tensor, rows: tf.Tensor, numbers: int) -> tf.Tensor:
        """Draw uniform numbers, float32 `(A, numbers)`, for the examples `rows`.

        Drawn for the whole batch: what an example gets does not depend on which of the
        others are still under attack.
        """
        shape = tf.stack([self._examples, numbers])
        seed = fold_in(self._seed, query)
        return tf.gather(tf.random.stateless_uniform(shape, seed, alg=ALGORITHM), rows)

    def images(self, t: tf.Tensor) -> tf.Tensor:
        """Return examples in the form `(A, H, W, D)`."""
        return tf.reshape(t, [-1, *self.extent, self.channels])

    def stage(self, query: tf.Tensor) -> tf.Tensor:
        """Return the number of the window size at a query."""
        return stage(query, self._queries)

    def weights(self, part: Problem) -> tf.Tensor | None:
        """Return the pixels that may change, float32 `(A, H * W)`; `None`: all."""
        if part.region is None:
            return None
        free = tf.reduce_max(self.images(part.region), axis=-1)
        return tf.reshape(
            tf.cast(free, tf.float32), [-1, self.extent[0] * self.extent[1]]
        )

    def place(
        self, u: tf.Tensor, weights: tf.Tensor | None, sides: tf.Tensor
    ) -> tf.Tensor:
        """Return the corners `(A, 2)` of windows, from uniform numbers `(A, 4)`."""
        if weights is None:
            return place_windows(u[:, :2], sides, self.extent)
        return place_windows_at(u, weights, sides, self.extent)
