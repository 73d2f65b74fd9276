"""HopSkipJump: a walk along the decision boundary by decisions alone."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import keras
import numpy as np
import tensorflow as tf

from keras_jsigr.attacks.base import Access, AttackContext, attack_dataset, check_inputs
from keras_jsigr.attacks.gradient_attack import (
    BestPoint,
    expand_dims_like,
    nonzero_rows,
    scatter_rows,
    take_rows,
    where_rows,
)
from keras_jsigr.attacks.losses import misclassified
from keras_jsigr.attacks.minimum_norm import Closest, MinimumNormAttack, label_of, lengths
from keras_jsigr.attacks.norms import safe_normalize, working_dtype
from keras_jsigr.attacks.square import random_search
from keras_jsigr.core import arguments
from keras_jsigr.core.batching import (
    chunked_sum,
    classified_rightly,
    draws_at_once,
    parallel_batches,
    predict_logits,
)
from keras_jsigr.core.logits import has_valid_logits
from keras_jsigr.core.random import ALGORITHM, fold_in
from keras_jsigr.core.scores import target_rows
from keras_jsigr.core.streams import is_stream

# Takes points (B, *S), returns whether they fool the model, bool (B,).
Decide = Callable[[tf.Tensor], tf.Tensor]


def bisect(decide: Decide, origin: tf.Tensor, x: tf.Tensor, *, norm: str, passes: int) -> tf.Tensor:
    """Move fooling points towards their inputs as far as they still fool."""
    reach = lengths(x - origin, norm)
    lower, upper = tf.minimum(origin, x), tf.maximum(origin, x)

    def at(share: tf.Tensor) -> tf.Tensor:
        if norm == "l2":
            point = origin + expand_dims_like(share, x) * (x - origin)
        else:
            radius = expand_dims_like(share * reach, x)
            point = tf.clip_by_value(x, origin - radius, origin + radius)
        # Between both to the last digit, so that range and region stay kept.
        return tf.clip_by_value(point, lower, upper)

    def body(turn: tf.Tensor, low: tf.Tensor, high: tf.Tensor) -> Any:
        middle = (low + high) / 2
        fools = decide(at(middle))
        return turn + 1, tf.where(fools, low, middle), tf.where(fools, middle, high)

    start = (tf.constant(0), tf.zeros_like(reach), tf.ones_like(reach))
    _, _, high = tf.while_loop(
        lambda turn, *_: turn < passes, body, start, maximum_iterations=passes
    )
    return where_rows(high < 1.0, at(high), x)


# Points (m * B, *S), draw by draw -> which fool, bool (m * B,), and points as seen.
Ask = Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]


def decision_gradient(
    ask: Ask, x: tf.Tensor, *, radius: tf.Tensor, count: tf.Tensor, norm: str, seed: tf.Tensor
) -> tf.Tensor:
    """Estimate the direction from the boundary into the region that fools."""
    shape = tf.shape(x)

    def draw(first: tf.Tensor, size: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        many, now = tf.concat([[size], shape], axis=0), fold_in(seed, first)
        if norm == "l2":
            u = tf.random.stateless_normal(many, now, dtype=x.dtype, alg=ALGORITHM)
        else:
            u = tf.random.stateless_uniform(many, now, -1.0, 1.0, dtype=x.dtype, alg=ALGORITHM)
        flat = tf.concat([[-1], shape[1:]], axis=0)
        u = tf.reshape(safe_normalize(tf.reshape(u, flat)), many)
        fools, seen = ask(tf.reshape(x + expand_dims_like(radius, x) * u, flat))
        moved = tf.reshape(seen, many) - x
        phi = tf.where(tf.reshape(fools, [size, -1]), 1.0, -1.0)
        phi = tf.cast(phi, x.dtype)
        signed = moved * tf.reshape(phi, tf.concat([[size], _column(shape)], axis=0))
        return (
            tf.reduce_sum(signed, axis=0),
            tf.reduce_sum(moved, axis=0),
            tf.reduce_sum(phi, axis=0),
        )

    signed, moved, phi = chunked_sum(count, draws_at_once(shape[0]), draw, (x, x, radius))
    mean = phi / tf.cast(count, x.dtype)
    mixed = signed - expand_dims_like(mean, x) * moved
    return where_rows(tf.abs(mean) < 1.0, mixed, signed)


def _column(shape: tf.Tensor) -> tf.Tensor:
    return tf.where(tf.range(tf.size(shape)) == 0, shape, 1)


def geometric_step_search(
    decide: Decide,
    x: tf.Tensor,
    direction: tf.Tensor,
    length: tf.Tensor,
    *,
    input_range: tuple[float, float],
    halvings: int,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Take the longest of the steps `length / 2^k` that leads to a fooling point."""

    def one(asked: tf.Tensor, length: tf.Tensor, moved: tf.Tensor, done: tf.Tensor) -> Any:
        point = tf.clip_by_value(x + expand_dims_like(length, x) * direction, *input_range)
        fools = decide(point) & ~done
        moved = where_rows(fools, point, moved)
        return asked + 1, length / 2, moved, done | fools

    start = (tf.constant(0), length, x, tf.zeros_like(length, tf.bool))
    asked, _, moved, _ = tf.while_loop(
        lambda asked, _length, _moved, done: (asked < halvings) & ~tf.reduce_all(done), one, start
    )
    return moved, asked


# Context of some examples, and points -> which fool, bool (A,), and points as seen.
AskAbout = Callable[[AttackContext, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]


def other_examples(
    x: tf.Tensor, pool: tf.Tensor, decisions: tf.Tensor, classes: tf.Tensor, *, targeted: bool
) -> tuple[tf.Tensor, tf.Tensor]:
    """Choose the nearest example of the pool that the model puts elsewhere."""
    decisions = tf.cast(decisions, classes.dtype)
    fits = (classes[:, None] == decisions[None, :]) == targeted
    flat, others = (tf.reshape(t, [tf.shape(t)[0], -1]) for t in (x, pool))
    squares = tf.reduce_sum(tf.square(others), axis=1)
    # Without |x_b|^2, which is the same for all candidates.
    distance = squares[None, :] - 2.0 * tf.matmul(flat, others, transpose_b=True)
    distance = tf.where(fits, distance, distance.dtype.max)
    chosen = tf.gather(pool, tf.argmin(distance, axis=1))
    return chosen, tf.reduce_any(fits, axis=1)


def noise_that_fools(
    ask: AskAbout, context: AttackContext, start: BestPoint, *, tries: int, seed: tf.Tensor
) -> BestPoint:
    """Draw uniform noise for the examples that have no point yet, until it fools."""
    low, high = context.input_range

    def look(part: AttackContext, x: tf.Tensor) -> BestPoint:
        fools, seen = ask(part, x)
        return BestPoint(seen, fools, tf.zeros(tf.shape(fools)))

    def propose(x: tf.Tensor, rows: tf.Tensor, query: tf.Tensor) -> tf.Tensor:
        now = fold_in(seed, query)
        return tf.random.stateless_uniform(
            tf.shape(x), now, low, high, dtype=x.dtype, alg=ALGORITHM
        )

    return random_search(look, context, start, lambda part: propose, tries)


_HALVINGS = 15
_TRIES = 50
_FIRST_DRAWS = 100
# Fewer draws than these tell nothing of a direction.
_FEWEST_DRAWS = 20
# Halvings of a distance: more than ten for a few percent, more than 22 are noise.
_BISECTIONS = (10, 22)

# The smallest change of a component worth asking about, relative to the range.
_RESOLUTION = {
    tf.float64: 2.0**-40,
    tf.float32: 2.0**-20,
    tf.float16: 2.0**-9,
    tf.bfloat16: 2.0**-6,
}


class BoundaryWalk:
    """What HopSkipJump does with one batch."""

    def __init__(self, attack: HopSkipJump, context: AttackContext) -> None:
        self._attack, self._context = attack, context
        self._d = math.prod(context.x.shape[1:])
        # The paper's thresholds: d^-1.5 and d^-2 of the distance.
        power = 1.5 if attack.norm == "l2" else 2.0
        wanted = math.ceil(power * math.log2(self._d))
        self._bisections = min(max(wanted, _BISECTIONS[0]), _BISECTIONS[1])
        self.most_queries = _HALVINGS + self._bisections

    def ask(self, part: AttackContext, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Return which points fool the model, bool `(A,)`, and how it saw them."""
        seen = part.to_model_input(x)
        logits = tf.cast(part.logits_fn(seen), tf.float32)
        return self._attack.margin(logits, part) > 0, tf.cast(seen, x.dtype)

    def going_on(self, best: Closest) -> tf.Tensor:
        """Tell which examples to work on, bool `(B,)`."""
        return best.found & self._attack.unfinished(self._context, best)

    def start(self, known: Closest, decisions: tf.Tensor, seed: tf.Tensor) -> tuple[Closest, int]:
        """Find a point at the boundary for each example."""
        context, origin = self._context, self._context.origin
        if context.starts is None:
            other, there = other_examples(
                origin, origin, decisions, label_of(context.targets), targeted=self._attack.targeted
            )
        else:
            other, there = context.starts, tf.ones_like(known.found)
        # With a region, only a part of the other example is taken over.
        fools, seen = self.ask(context, other)
        there &= fools & ~known.found
        x = tf.where(expand_dims_like(there, origin), seen, origin)
        first = BestPoint(x, there | known.found, tf.zeros(tf.shape(there)))
        found = noise_that_fools(self.ask, context, first, tries=_TRIES, seed=seed)
        rows = nonzero_rows(found.success & ~known.found)
        near = self.to_boundary(
            context.take(rows), tf.gather(found.x, rows), take_rows(known, rows)
        )[1]
        return scatter_rows(near, rows, known), 2 + _TRIES + self._bisections

    def draws(self, number: tf.Tensor, left: tf.Tensor) -> tf.Tensor:
        """Return how many draws turn `number`, from one, may have; zero: none."""
        wanted = _FIRST_DRAWS * tf.sqrt(tf.cast(number, tf.float32))
        draws = tf.minimum(tf.cast(wanted, tf.int32), left - self.most_queries)
        return tf.where(draws < _FEWEST_DRAWS, 0, draws)

    def turn(
        self, x: tf.Tensor, best: Closest, number: tf.Tensor, draws: tf.Tensor, seed: tf.Tensor
    ) -> tuple[tf.Tensor, Closest, tf.Tensor]:
        """Go along the normal and back to the boundary."""
        rows = nonzero_rows(self.going_on(best))
        part, here = self._context.take(rows), tf.gather(x, rows)
        distance = lengths(here - part.origin, self._attack.norm)
        moved, halvings = geometric_step_search(
            self._decide(part),
            here,
            self._normal(part, here, distance, draws, seed),
            distance / tf.sqrt(tf.cast(number, x.dtype)),
            input_range=part.input_range,
            halvings=_HALVINGS,
        )
        here, near = self.to_boundary(part, moved, take_rows(best, rows))
        x, best = scatter_rows((here, near), rows, (x, best))
        return x, best, draws + halvings + self._bisections

    def to_boundary(
        self, part: AttackContext, x: tf.Tensor, best: Closest
    ) -> tuple[tf.Tensor, Closest]:
        """Return the points of the boundary below fooling points, and the closest."""
        norm, passes = self._attack.norm, self._bisections
        x = bisect(self._decide(part), part.origin, x, norm=norm, passes=passes)
        x = tf.ensure_shape(tf.cast(part.to_model_input(x), x.dtype), x.shape)
        return x, best.or_closer(x, tf.ones_like(best.found), part.origin, norm)

    def _decide(self, part: AttackContext) -> Decide:
        return lambda points: self.ask(part, points)[0]

    def _normal(
        self,
        part: AttackContext,
        x: tf.Tensor,
        distance: tf.Tensor,
        draws: tf.Tensor,
        seed: tf.Tensor,
    ) -> tf.Tensor:
        """Estimate the boundary's normal at points on it."""
        low, high = part.input_range
        finest = _RESOLUTION[part.x.dtype] * (high - low) * math.sqrt(self._d)
        rows = tf.range(tf.shape(x)[0])

        def ask(points: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            times = tf.shape(points)[0] // tf.maximum(tf.size(rows), 1)
            points = tf.clip_by_value(points, low, high)
            return self.ask(part.take(tf.tile(rows, [times])), points)

        v = decision_gradient(
            ask,
            x,
            radius=tf.maximum(distance / self._d, finest),
            count=draws,
            norm=self._attack.norm,
            seed=fold_in(seed, 0),
        )
        return safe_normalize(v) if self._attack.norm == "l2" else tf.sign(v)


@keras.saving.register_keras_serializable(package="keras_jsigr")
@dataclass(frozen=True, kw_only=True)
class HopSkipJump(MinimumNormAttack):
    """Walk along the decision boundary, asking only for decisions (arXiv 1904.02144).

    From a fooling point it goes in turn to the boundary (by halving), along the
    boundary's normal, estimated from decisions around, into the fooling side, and back
    to the boundary nearer the input. No masking of logits or gradients helps a model.

    It starts from the nearest example of the batch that the model puts into another
    class or, targeted, into the class to reach; else from noise. Where none of these
    fools the model, the input is returned, with a warning. A call takes examples to
    start from instead of the batch, any number of them and at best of every class to
    reach: `attack(model, x, y, starting_points=x_train[:1000])`. Other arguments are
    those of `MinimumNormAttack`, without `search_passes`.

    Args:
        queries: The largest number of decisions asked for per example, >= 200.
        norm: `"l2"` or `"linf"`.

    Example:
        >>> import numpy as np, keras_jsigr as kj
        >>> x = np.array([[0.5, 0.75], [0.75, 0.25]])
        >>> x_adv = kj.attacks.HopSkipJump(queries=500)(lambda x: x, x)
        >>> np.linalg.norm(x_adv - x, axis=1).round(1).tolist()
        [0.2, 0.4]
    """

    access: ClassVar[Access] = "decision"

    norm: str = "l2"
    queries: int = 5000
    # The base's line search interpolates margins, which decisions do not give.
    search_passes: int = field(default=0, init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        arguments.choice("norm", self.norm, ("l2", "linf"))
        self._normalize(arguments.count, "queries", minimum=200)

    @property
    def passes(self) -> int:
        """Number of queries per example."""
        return self.queries

    def __call__(
        self,
        model: Any,
        x: Any,
        y: Any = None,
        *,
        epsilons: Sequence[float] | None = None,
        region: Any = None,
        starting_points: Any = None,
    ) -> Any:
        """Attack `model` at `x`; see the class for arguments and result."""
        if isinstance(x, tf.Variable):
            x = tf.convert_to_tensor(x)
        if is_stream(x):
            more = {"epsilons": epsilons, "region": region, "starting_points": starting_points}
            return attack_dataset(self, model, x, y, **more)
        starts = starting_points
        if starts is not None:
            starts = self._chosen(model, x, y, starts)
        found = self._run(model, x, y, epsilons=epsilons, region=region, starts=starts)
        reached = [found] if epsilons is None else found
        if self.epsilon and reached:
            self._warn_of_unmoved(model, x, y, reached[-1])
        return found

    def _chosen(self, model: Any, x: Any, y: Any, pool: Any) -> Any:
        """Choose per example the nearest point of another decision, else itself."""
        attack = self.for_model(model)
        limits: Any = attack.input_range
        x, pool = (check_inputs(points, limits, model) for points in (x, pool))
        if tuple(pool.shape[1:]) != tuple(x.shape[1:]):
            raise ValueError(
                f"`starting_points` do not match `x`: got shape {tuple(pool.shape)}, "
                f"expected (M, {', '.join(map(str, x.shape[1:]))}). Pass examples like "
                "those to attack, as many as there are."
            )
        decisions = predict_logits(model, pool, self.batch_size)
        labels = self._labels(model, x, y, decisions.shape[-1])
        dtype = working_dtype(x.dtype)
        points, decided = tf.cast(pool, dtype), tf.argmax(decisions, axis=-1)

        def nearest(rows: slice) -> tf.Tensor:
            part = tf.cast(x[rows], dtype)
            chosen, there = other_examples(
                part, points, decided, labels[rows], targeted=self.targeted
            )
            return where_rows(there, chosen, part)

        parts = parallel_batches(nearest, len(x), self.batch_size)
        return tf.concat(list(parts), axis=0)

    def _labels(self, model: Any, x: Any, y: Any, classes: int) -> tf.Tensor:
        if y is None:
            logits = predict_logits(model, x, self.batch_size)
            return tf.argmax(logits, axis=-1, output_type=tf.int32)
        return label_of(target_rows(y, len(x), classes))

    def _warn_of_unmoved(self, model: Any, x: Any, y: Any, x_adv: Any) -> None:
        """Say for which classes no point was found to start from."""
        same = np.asarray(tf.equal(x, x_adv)).reshape(len(x), -1).all(axis=1)
        if not same.any():
            return
        logits = predict_logits(model, x, self.batch_size)
        labels = self._labels(model, x, y, logits.shape[-1]).numpy()
        stuck = same & (classified_rightly(logits, labels) != self.targeted)
        if stuck.any():
            classes = np.unique(labels[stuck]).tolist()
            aim = "reach the classes" if self.targeted else "leave the classes"
            warnings.warn(
                f"HopSkipJump found no starting point for {stuck.sum()} of {len(x)} examples, "
                f"which are to {aim} {classes}: they are returned as they are. Pass examples that "
                "the model puts there, `attack(model, x, y, starting_points=x_train[:1000])`.",
                RuntimeWarning,
                stacklevel=3,
            )

    def margin(self, logits: tf.Tensor, context: AttackContext) -> tf.Tensor:
        """Return a large number where the decision fools and minus one elsewhere, `(B,)`."""
        # All it knows is the decision. Probabilities that tie decide for the first class.
        fools = misclassified(logits, context.targets) != self.targeted
        ties = getattr(context.logits_fn, "resolution", 0.0)
        if ties > 0.0:
            fools &= super().margin(logits, context) > ties
        return tf.where(fools, logits.dtype.max, -1.0)

    def approach(
        self, context: AttackContext, logits: tf.Tensor, known: Closest
    ) -> tuple[Closest, tf.Tensor]:
        """Walk along the boundary; see `MinimumNormAttack.approach`."""
        walk, seed = BoundaryWalk(self, context), context.seed
        # Where the model names no class, none: also no class to reach.
        decisions = tf.where(has_valid_logits(logits), tf.argmax(logits, axis=-1), -1)
        best, asked = walk.start(known, decisions, fold_in(seed, 0))

        def turn(number: tf.Tensor, left: tf.Tensor, x: tf.Tensor, best: Closest) -> Any:
            draws, now = walk.draws(number, left), fold_in(seed, number)
            x, best, queries = walk.turn(x, best, number, draws, now)
            return number + 1, left - queries, x, best

        def worth_it(number: tf.Tensor, left: tf.Tensor, x: tf.Tensor, best: Closest) -> tf.Tensor:
            return (walk.draws(number, left) > 0) & tf.reduce_any(walk.going_on(best))

        start = (tf.constant(1), tf.constant(self.queries - asked), best.x, best)
        end: tuple[Any, Any, Any, Closest] = tf.while_loop(worth_it, turn, start)
        return end[3], tf.ones_like(best.found)
