"""One batch of HopSkipJump: to the boundary, along its normal, and back."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import tensorflow as tf

from keras_jsigr.attacks.balls.normalize import safe_normalize
from keras_jsigr.attacks.minimum_norm.closest import Closest, closer, lengths
from keras_jsigr.attacks.queries.bisection import Decide, bisect
from keras_jsigr.attacks.queries.decision_gradient import decision_gradient
from keras_jsigr.attacks.queries.fooling_step import fooling_step
from keras_jsigr.attacks.queries.starting_points import noise_that_fools, other_examples
from keras_jsigr.attacks.search.found import Found
from keras_jsigr.attacks.search.problem import Problem
from keras_jsigr.attacks.search.rows import like, put, true_rows
from keras_jsigr.attacks.search.seeds import fold_in
from keras_jsigr.core.logits import LogitsFn

if TYPE_CHECKING:
    from keras_jsigr.attacks.queries.hopskipjump import HopSkipJump

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
    """What HopSkipJump does with one batch.

    Args:
        attack: The settings.
        logits_fn: Maps inputs to logits `(B, C)`; only decisions are used.
        problem: The batch.

    Attributes:
        most_queries: The largest number of queries of a turn beside the draws.

    Reference:
        arXiv 1904.02144, algorithm 2.
    """

    def __init__(
        self, attack: HopSkipJump, logits_fn: LogitsFn, problem: Problem
    ) -> None:
        self._attack, self._logits_fn, self._problem = attack, logits_fn, problem
        self._d = math.prod(problem.x.shape[1:])
        # The paper's thresholds: d^-1.5 and d^-2 of the distance.
        power = 1.5 if attack.norm == "l2" else 2.0
        wanted = math.ceil(power * math.log2(self._d))
        self._bisections = min(max(wanted, _BISECTIONS[0]), _BISECTIONS[1])
        self.most_queries = _HALVINGS + self._bisections

    def ask(self, part: Problem, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Return which points fool the model, bool `(A,)`, and how it saw them."""
        seen = part.see(x)
        logits = tf.cast(self._logits_fn(seen), tf.float32)
        return self._attack.margin(logits, part) > 0, tf.cast(seen, x.dtype)

    def going_on(self, best: Closest) -> tf.Tensor:
        """Tell which examples to work on, bool `(B,)`."""
        return best.found & self._attack.unfinished(best)

    def start(
        self, known: Closest, decisions: tf.Tensor, seed: tf.Tensor
    ) -> tuple[Closest, int]:
        """Find a point at the boundary for each example.

        Args:
            known: The inputs, at distance zero where they fool already.
            decisions: Int64 `(B,)`, the model's classes at the inputs, or -1.
            seed: Int32 `(2,)`.

        Returns:
            The points, at an infinite distance where there is none; and the largest
            number of queries per example, with the one at the inputs.
        """
        problem, origin = self._problem, self._problem.origin
        other, there = other_examples(
            origin, decisions, problem.targets, targeted=self._attack.targeted
        )
        # With a region, only a part of the other example is taken over.
        fools, seen = self.ask(problem, other)
        there &= fools & ~known.found
        x = tf.where(like(there, origin), seen, origin)
        first = Found(x, there | known.found, tf.zeros(tf.shape(there)))
        found = noise_that_fools(
            self.ask,
            problem,
            first,
            input_range=self._attack.input_range,
            tries=_TRIES,
            seed=seed,
        )
        rows = true_rows(found.success & ~known.found)
        near = self.to_boundary(
            problem.take(rows), tf.gather(found.x, rows), known.take(rows)
        )[1]
        return put(near, rows, known), 2 + _TRIES + self._bisections

    def draws(self, number: tf.Tensor, left: tf.Tensor) -> tf.Tensor:
        """Return how many draws turn `number`, from one, may have; zero: none."""
        wanted = _FIRST_DRAWS * tf.sqrt(tf.cast(number, tf.float32))
        draws = tf.minimum(tf.cast(wanted, tf.int32), left - self.most_queries)
        return tf.where(draws < _FEWEST_DRAWS, 0, draws)

    def turn(
        self,
        x: tf.Tensor,
        best: Closest,
        number: tf.Tensor,
        draws: tf.Tensor,
        seed: tf.Tensor,
    ) -> tuple[tf.Tensor, Closest, tf.Tensor]:
        """Go along the normal and back to the boundary.

        Returns:
            The points at the boundary, the closest so far, and the queries per example.
        """
        rows = true_rows(self.going_on(best))
        part, here = self._problem.take(rows), tf.gather(x, rows)
        distance = lengths(here - part.origin, self._attack.norm)
        normal = self._normal(part, here, distance, draws, seed)
        moved, halvings = fooling_step(
            self._decide(part),
            here,
            normal,
            distance / tf.sqrt(tf.cast(number, x.dtype)),
            input_range=self._attack.input_range,
            halvings=_HALVINGS,
        )
        here, near = self.to_boundary(part, moved, best.take(rows))
        x, best = put((here, near), rows, (x, best))
        return x, best, draws + halvings + self._bisections

    def to_boundary(
        self, part: Problem, x: tf.Tensor, best: Closest
    ) -> tuple[tf.Tensor, Closest]:
        """Return the points of the boundary below fooling points, and the closest."""
        norm, passes = self._attack.norm, self._bisections
        x = bisect(self._decide(part), part.origin, x, norm=norm, passes=passes)
        x = tf.ensure_shape(tf.cast(part.see(x), x.dtype), x.shape)
        fools = tf.ones_like(best.found)
        return x, closer(best, x, fools, part.origin, norm)

    def _decide(self, part: Problem) -> Decide:
        return lambda points: self.ask(part, points)[0]

    def _normal(
        self,
        part: Problem,
        x: tf.Tensor,
        distance: tf.Tensor,
        draws: tf.Tensor,
        seed: tf.Tensor,
    ) -> tf.Tensor:
        low, high = self._attack.input_range
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
