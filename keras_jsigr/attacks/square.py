"""The Square attack, and the random search that it and other queries go by."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, cast

import keras
import numpy as np
import tensorflow as tf

from keras_jsigr.attacks.base import Access, Attack, AttackContext
from keras_jsigr.attacks.gradient_attack import (
    BestPoint,
    any_number_of_rows,
    keep_stronger,
    nonzero_rows,
    scatter_rows,
    score_points,
    take_rows,
    where_rows,
)
from keras_jsigr.attacks.losses import LossName
from keras_jsigr.core import arguments
from keras_jsigr.core.random import ALGORITHM, fold_in

Array = np.ndarray[Any, Any]


def bump(height: int, width: int, power: int = 2) -> Array:
    """Build a hill that falls off from the centre in squares, for the L1 norm steeper."""
    rows = np.abs(np.arange(height) - height // 2)
    columns = np.abs(np.arange(width) - width // 2)
    distance = np.maximum(rows[:, None], columns)
    terms = 1.0 / np.arange(1.0, max(height, width) // 2 + 2) ** (2 if power == 2 else 4)
    return cast(Array, np.cumsum(terms[::-1])[::-1][distance])


def dipole(height: int, width: int, power: int = 2, *, across: bool = False) -> Array:
    """Build a hill beside a valley, of length one in the norm of that power."""
    if height == width == 1:
        return np.ones((1, 1))
    if (across and width > 1) or height == 1:
        return dipole(width, height, power).T
    halves = bump(height // 2, width, power), bump(height - height // 2, width, power)
    # Each half has the same length.
    hill, valley = (half / (2 * (half**power).sum()) ** (1 / power) for half in halves)
    return np.concatenate([hill, -valley])


def dipole_table(sides: list[tuple[int, int]], extent: tuple[int, int], power: int = 2) -> Array:
    """List the dipoles of all window sizes for looking up single pixels."""
    table = np.zeros((len(sides), 2, *extent))
    for stage, (height, width) in enumerate(sides):
        for across in (0, 1):
            window = dipole(height, width, power, across=bool(across))
            table[stage, across, :height, :width] = window
    return np.pad(table.reshape(len(sides), -1), [(0, 0), (0, 1)])


def tiles(extent: tuple[int, int], power: int = 2) -> tuple[Array, ...]:
    """Lay dipoles on a grid of about five times five, both ways round."""
    sides = [max(length // 5, 1) for length in extent]
    counts = [extent[axis] // sides[axis] for axis in (0, 1)]
    over = [extent[axis] - counts[axis] * sides[axis] for axis in (0, 1)]
    margins = [(rest // 2, rest - rest // 2) for rest in over]
    numbers = np.arange(counts[0] * counts[1]).reshape(counts)
    number = np.kron(numbers, np.ones(sides, "int64"))
    both = (dipole(sides[0], sides[1], power, across=across) for across in (False, True))
    above, beside = (np.pad(np.tile(tile, counts), margins) for tile in both)
    return above, beside, np.pad(number, margins, constant_values=-1)


def spread(delta: tf.Tensor, epsilon: Any, power: int) -> tf.Tensor:
    """Scale perturbations to the radius: `epsilon * delta / ||delta||_p`."""
    powers = tf.reduce_sum(tf.abs(delta) ** power, axis=[1, 2, 3], keepdims=True)
    return tf.math.divide_no_nan(epsilon * delta, powers ** (1.0 / power))


def transfer_mass(
    delta: tf.Tensor,
    shape: tf.Tensor,
    window: tf.Tensor,
    other: tf.Tensor,
    signs: tf.Tensor,
    *,
    epsilon: Any,
    power: int,
) -> tf.Tensor:
    """Move the mass of window `other` and the unused budget into `window`."""
    zero = tf.zeros_like(delta)

    def measure(t: tf.Tensor) -> tf.Tensor:
        powers = tf.square(t) if power == 2 else tf.abs(t)
        return tf.reduce_sum(powers, axis=[1, 2], keepdims=True)

    def direction(t: tf.Tensor) -> tf.Tensor:
        size = measure(t)
        return tf.math.divide_no_nan(t, tf.sqrt(size) if power == 2 else size)

    used = tf.reduce_sum(measure(delta), axis=-1, keepdims=True)
    unused = tf.maximum(epsilon**power - used, 0.0) / delta.shape[-1]
    budget = measure(tf.where(window | other, delta, zero)) + unused
    mixed = signs[:, None, None] * direction(tf.where(window, shape[..., None], zero))
    mixed = direction(mixed + direction(tf.where(window, delta, zero)))
    filled = mixed * (tf.sqrt(budget) if power == 2 else budget)
    return tf.where(window, filled, tf.where(other, zero, delta))


# The paper's steps for 10,000 queries: the window's area is halved after each.
_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
_PAPER_QUERIES = 10_000
STAGES = len(_HALVINGS) + 1


def stage(query: tf.Tensor, queries: int) -> tf.Tensor:
    """Count how often the area was halved: the schedule, rescaled to `queries`."""
    # In 64 bits: the product of large budgets does not fit 32.
    paper_query = tf.cast(query, tf.int64) * _PAPER_QUERIES // queries
    halvings = tf.constant(_HALVINGS, tf.int64)
    over = paper_query[..., None] > halvings
    return tf.reduce_sum(tf.cast(over, tf.int32), axis=-1)


def window_sides(fraction: float, extent: tuple[int, int], *, odd: bool = False) -> tuple[int, int]:
    """Choose the sides of a window that covers a fraction of an image."""
    area = fraction * extent[0] * extent[1]
    shorter = min(extent)
    side = min(_whole(math.sqrt(area), odd), shorter)
    if side < shorter:
        return side, side
    longer = min(_whole(area / shorter, odd), max(extent))
    return (longer, shorter) if extent[0] >= extent[1] else (shorter, longer)


def _whole(side: float, odd: bool) -> int:
    whole = max(round(side), 1)
    return max(whole + (whole % 2 == 0), 3) if odd else whole


def all_window_sides(
    p_init: float, extent: tuple[int, int], *, odd: bool = False
) -> list[tuple[int, int]]:
    """List the sides of the windows of all stages."""
    fractions = [p_init / 2**number for number in range(STAGES)]
    return [window_sides(fraction, extent, odd=odd) for fraction in fractions]


def as_image(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Find rows, columns and channels in the shape of one example."""
    if len(shape) == 3:
        return shape[0], shape[1], shape[2]
    if len(shape) == 2:
        return shape[0], 1, shape[1]
    if len(shape) == 1:
        return shape[0], 1, 1
    raise ValueError(
        f"The windows of the Square attack are two-dimensional: got examples of shape "
        f"{shape}, expected (H, W, D), (T, D) or (F,). Attack a callable that reshapes "
        "to what the model takes."
    )


def place_windows(u: tf.Tensor, sides: tf.Tensor, extent: tuple[int, int]) -> tf.Tensor:
    """Place one window per example, all positions inside the image equally likely."""
    choices = tf.constant(extent) - sides + 1
    corners = tf.cast(u * tf.cast(choices, u.dtype), tf.int32)
    # The product may round up to the number of choices itself.
    return tf.minimum(corners, choices - 1)


def place_windows_at(
    u: tf.Tensor, weights: tf.Tensor, sides: tf.Tensor, extent: tuple[int, int]
) -> tf.Tensor:
    """Place one window per example so that it holds a pixel that may change."""
    total = tf.cumsum(weights, axis=-1)
    drawn = u[:, :1] * total[:, -1:]
    pixel = tf.searchsorted(total, drawn, side="right")
    pixel = tf.minimum(pixel, extent[0] * extent[1] - 1)
    where = tf.concat([pixel // extent[1], pixel % extent[1]], axis=-1)
    within = tf.cast(u[:, 2:] * tf.cast(sides, u.dtype), tf.int32)
    last = tf.constant(extent) - sides
    return tf.clip_by_value(where - tf.minimum(within, sides - 1), 0, last)


def offsets(
    corners: tf.Tensor, sides: tf.Tensor, extent: tuple[int, int]
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Tell which pixels lie in a window, and where in it."""
    rows = (tf.range(extent[0]) - corners[:, :1])[:, :, None]
    columns = (tf.range(extent[1]) - corners[:, 1:])[:, None, :]
    in_rows = (rows >= 0) & (rows < sides[0])
    in_columns = (columns >= 0) & (columns < sides[1])
    return in_rows & in_columns, rows, columns


class Windows:
    """Draw windows; every example has its own stream of random numbers."""

    def __init__(self, attack: Square, context: AttackContext, seed: Any, *, odd: bool) -> None:
        height, width, self.channels = as_image(tuple(context.x.shape[1:]))
        self.extent = height, width
        self.sides = all_window_sides(attack.p_init, self.extent, odd=odd)
        rescaled = attack.rescale_schedule
        self._seed, self._queries = seed, attack.queries if rescaled else _PAPER_QUERIES
        self._examples = tf.shape(context.x)[0]

    def draw(self, query: tf.Tensor, rows: tf.Tensor, numbers: int) -> tf.Tensor:
        """Draw uniform numbers, float32 `(A, numbers)`, for the examples `rows`."""
        shape = tf.stack([self._examples, numbers])
        seed = fold_in(self._seed, query)
        return tf.gather(tf.random.stateless_uniform(shape, seed, alg=ALGORITHM), rows)

    def images(self, t: tf.Tensor) -> tf.Tensor:
        """Return examples in the form `(A, H, W, D)`."""
        return tf.reshape(t, [-1, *self.extent, self.channels])

    def stage(self, query: tf.Tensor) -> tf.Tensor:
        """Return the number of the window size at a query."""
        return stage(query, self._queries)

    def weights(self, part: AttackContext) -> tf.Tensor | None:
        """Return the pixels that may change, float32 `(A, H * W)`; `None`: all."""
        if part.region is None:
            return None
        free = tf.reduce_max(self.images(part.region), axis=-1)
        return tf.reshape(tf.cast(free, tf.float32), [-1, self.extent[0] * self.extent[1]])

    def place(self, u: tf.Tensor, weights: tf.Tensor | None, sides: tf.Tensor) -> tf.Tensor:
        """Return the corners `(A, 2)` of windows, from uniform numbers `(A, 4)`."""
        if weights is None:
            return place_windows(u[:, :2], sides, self.extent)
        return place_windows_at(u, weights, sides, self.extent)


def stripes(u: tf.Tensor, lower: tf.Tensor, upper: tf.Tensor) -> tf.Tensor:
    """Paint vertical stripes one pixel wide, each channel at either end of its box."""
    axis = 2 if lower.shape[2] == 1 else 1
    return tf.where(tf.expand_dims(u >= 0.5, axis), upper, lower)


def paint(
    x: tf.Tensor, lower: tf.Tensor, upper: tf.Tensor, inside: tf.Tensor, u: tf.Tensor
) -> tf.Tensor:
    """Paint one window per example, each channel at either end of its box."""
    channels = x.shape[-1]
    up, turn = u[:, :channels] >= 0.5, u[:, channels:-1] >= 0.5
    one = tf.cast(u[:, -1] * channels, tf.int32)
    turn |= tf.one_hot(one, channels, True, False, dtype=tf.bool)
    window = inside[..., None]
    painted = tf.where(up[:, None, None], upper, lower)
    same = tf.reduce_all((painted == x) | ~window, axis=[1, 2, 3])
    up = tf.where(same[:, None] & turn, ~up, up)
    return tf.where(window, tf.where(up[:, None, None], upper, lower), x)


# Points so far, their numbers in the batch, int32 (A,), and the query -> candidates.
Propose = Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]
# One in so many may be done before the others move on: gathering has a cost, too.
_DONE = 8


def random_search(
    look: Callable[[AttackContext, tf.Tensor], BestPoint],
    context: AttackContext,
    start: BestPoint,
    moves: Callable[[AttackContext], Propose],
    queries: int,
) -> BestPoint:
    """Improve points by trying proposals, until each fools the model or queries end."""

    def with_the_rest(query: tf.Tensor, best: BestPoint) -> Any:
        rows = nonzero_rows(~best.success)
        part = context.take(rows)
        propose = moves(part)

        def ask(query: tf.Tensor, found: BestPoint) -> Any:
            new = look(part, tf.ensure_shape(propose(found.x, rows, query), x_shape))
            better = new.success | (new.value > found.value)
            return query + 1, where_rows(better & ~found.success, new, found)

        def enough_left(query: tf.Tensor, found: BestPoint) -> tf.Tensor:
            done = tf.math.count_nonzero(found.success, dtype=tf.int32)
            return (query < queries) & ((done == 0) | (done * _DONE < tf.size(rows)))

        x_shape = tf.TensorShape([None, *context.x.shape[1:]])
        begin = (query, take_rows(best, rows))
        query, found = tf.while_loop(
            enough_left, ask, begin, shape_invariants=any_number_of_rows(begin)
        )
        return query, scatter_rows(found, rows, best)

    def any_left(query: tf.Tensor, best: BestPoint) -> tf.Tensor:
        return (query < queries) & tf.reduce_any(~best.success)

    begin = (tf.constant(0), start)
    end: tuple[tf.Tensor, BestPoint] = tf.while_loop(
        any_left, with_the_rest, begin, shape_invariants=any_number_of_rows(begin)
    )
    return end[1]


class Moves(Protocol):
    """What the Square attack asks of a norm."""

    def __init__(self, attack: Square, context: AttackContext, seed: tf.Tensor) -> None:
        """Prepare for one batch and restart."""

    def start(self) -> tf.Tensor:
        """Return the first points of the whole batch."""

    def for_part(self, part: AttackContext) -> Propose:
        """Return what proposes points for some examples of the batch."""


class LinfMoves:
    """Paint stripes, then windows, at the edge of the box."""

    def __init__(self, attack: Square, context: AttackContext, seed: tf.Tensor) -> None:
        self._context, self._seed = context, fold_in(seed, 0)
        self._windows = Windows(attack, context, fold_in(seed, 1), odd=False)

    def _box(self, context: AttackContext) -> tuple[tf.Tensor, tf.Tensor]:
        ball, far = context.ball, 2.0 * context.epsilon
        lower, upper = ball.project(ball.origin - far), ball.project(ball.origin + far)
        return self._windows.images(lower), self._windows.images(upper)

    def start(self) -> tf.Tensor:
        """Return the stripes."""
        examples, (height, width) = tf.shape(self._context.x)[0], self._windows.extent
        shape = [examples, width if width > 1 else height, self._windows.channels]
        u = tf.random.stateless_uniform(shape, self._seed, alg=ALGORITHM)
        painted = stripes(u, *self._box(self._context))
        return tf.reshape(painted, tf.shape(self._context.x))

    def for_part(self, part: AttackContext) -> Propose:
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
    """Spread dipoles on a grid, then transfer the mass of one window into another."""

    def __init__(self, attack: Square, context: AttackContext, seed: tf.Tensor) -> None:
        self._context, self._seed = context, fold_in(seed, 0)
        self._windows = Windows(attack, context, fold_in(seed, 1), odd=True)
        self._power = {"l1": 1, "l2": 2}[attack.norm]
        table = dipole_table(self._windows.sides, self._windows.extent, self._power)
        self._table = tf.constant(table, context.origin.dtype)

    def start(self) -> tf.Tensor:
        """Return dipoles on a grid, scaled to the radius."""
        context, windows = self._context, self._windows
        above, beside, number = tiles(windows.extent, self._power)
        shape = [tf.shape(context.x)[0], int(number.max()) + 1, 1 + windows.channels]
        u = tf.random.stateless_uniform(shape, self._seed, alg=ALGORITHM)
        # The margin has no dipole: any tile's numbers will do there.
        u = tf.gather(u, np.maximum(number, 0), axis=1)
        shapes = tf.where(u[..., :1] < 0.5, above[..., None], beside[..., None])
        delta = tf.cast(tf.where(u[..., 1:] < 0.5, shapes, -shapes), self._table.dtype)
        if context.region is not None:
            delta *= windows.images(context.region)
        delta = spread(delta, context.epsilon, self._power)
        ball = context.ball
        return ball.project(ball.origin + tf.reshape(delta, tf.shape(context.x)))

    def for_part(self, part: AttackContext) -> Propose:
        """Return what transfers mass from window to window."""
        windows, weights = self._windows, self._windows.weights(part)
        ball, (height, width) = part.ball, self._windows.extent

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
            delta = transfer_mass(
                windows.images(x - ball.origin),
                shape,
                window,
                other,
                tf.cast(tf.where(u[:, 9:] < 0.5, 1.0, -1.0), x.dtype),
                epsilon=part.epsilon,
                power=self._power,
            )
            return ball.project(ball.origin + tf.reshape(delta, tf.shape(x)))

        return propose


MOVES: dict[str, type[Moves]] = {"linf": LinfMoves, "l2": PowerMoves, "l1": PowerMoves}
# One look at the input itself and one at the stripes.
_BEFORE_WINDOWS = 2


@keras.saving.register_keras_serializable(package="keras_jsigr")
@dataclass(frozen=True, kw_only=True)
class Square(Attack):
    """Repaint random windows and keep what raises the loss; no gradient is used.

    It starts from stripes at the edge of the ball and proposes one window per query, at
    a random place and in random colours; the windows shrink by a fixed schedule (arXiv
    1912.00049; L1: arXiv 2103.01208). Examples are left alone as soon as they are
    misclassified. Sequences `(T, D)` are treated as images of a single column, features
    `(F,)` as such a sequence of one channel. Other arguments are those of `Attack`.

    Args:
        queries: Number of times the model is asked per example and restart, >= 2.
        p_init: Fraction of the image that the first windows cover, above 0, at most 1.
        restarts: Number of runs, each for the examples that still resist.
        rescale_schedule: Whether the paper's schedule, of 10,000 queries, is stretched
            to `queries`; `AutoAttack` leaves it as it is, as its authors do.
        loss: `"margin"`, the paper's; for targeted attacks it has `"cross_entropy"`.

    Example:
        >>> import numpy as np, keras_jsigr as kj
        >>> kj.attacks.Square(0.25)(lambda x: x, np.array([[0.5, 0.75]]), [1]).tolist()
        [[0.75, 0.5]]
    """

    access: ClassVar[Access] = "black box"

    loss: LossName = "margin"
    queries: int = 5000
    p_init: float = 0.8
    restarts: int = 1
    rescale_schedule: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        self._normalize(arguments.count, "queries", minimum=_BEFORE_WINDOWS)
        self._normalize(arguments.count, "restarts")
        self._normalize(arguments.share, "p_init", ends="(]")
        arguments.choice("rescale_schedule", self.rescale_schedule, (False, True))

    @property
    def passes(self) -> int:
        """Number of queries per example."""
        return self.queries * self.restarts

    def search(self, context: AttackContext) -> tuple[tf.Tensor, tf.Tensor]:
        """Attack one batch; see `Attack.search`."""

        def look(part: AttackContext, x: tf.Tensor) -> BestPoint:
            return score_points(self, part, x)

        def restart(number: tf.Tensor, best: BestPoint) -> Any:
            moves = MOVES[self.norm](self, context, fold_in(context.seed, number))
            start = look(context, moves.start())
            found = random_search(
                look,
                context,
                where_rows(best.success, best, start),
                moves.for_part,
                self.queries - _BEFORE_WINDOWS,
            )
            return number + 1, keep_stronger(found, best)

        best = look(context, context.origin)
        _, best = tf.while_loop(
            lambda number, best: (number < self.restarts) & tf.reduce_any(~best.success),
            restart,
            (tf.constant(0), best),
        )
        return context.to_model_input(best.x), tf.ones_like(best.success)
