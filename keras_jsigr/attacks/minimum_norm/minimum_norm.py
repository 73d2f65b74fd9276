"""Attacks that look for the smallest perturbation instead of filling a ball."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

from keras_jsigr.attacks.attack import Attack
from keras_jsigr.attacks.balls.ball import BALLS
from keras_jsigr.attacks.calls.batches import run_batches
from keras_jsigr.attacks.minimum_norm.boundary import safe_margin
from keras_jsigr.attacks.minimum_norm.closest import (
    Closest,
    closer,
    lengths,
    none_closer,
)
from keras_jsigr.attacks.minimum_norm.line_search import line_search
from keras_jsigr.attacks.minimum_norm.touch import touch
from keras_jsigr.attacks.objectives.answered import answered
from keras_jsigr.attacks.objectives.losses import LossName, attack_loss
from keras_jsigr.attacks.search.problem import Problem
from keras_jsigr.attacks.search.rounding import round_towards, working_dtype
from keras_jsigr.attacks.search.rows import like, put, true_rows
from keras_jsigr.core import settings
from keras_jsigr.core.logits import LogitsFn


@dataclass(frozen=True, kw_only=True)
class MinimumNormAttack(Attack):
    """Search for the fooling point closest to each input.

    `x_adv = argmin ||x' - x||` over the `x'` in `input_range` that fool the model.
    Returns per example the closest that was seen, `x` itself where none was. A method
    implements `approach`; what it found is then moved towards `x` (`line_search`).

    With a finite `epsilon` the question is only whether the ball holds a fooling point:
    an example is left alone as soon as one is known in it, and a point outside is
    projected onto it. For distances leave `epsilon` infinite. `epsilons=[...]` in a
    call takes one search without limit for all radii.

    Args:
        epsilon: Radius in input units, >= 0; infinity (in a configuration `None`) sets
            no limit.
        search_passes: Number of forward passes that move a point towards its input in
            the end; 0 returns what the method itself arrives at.

    Example:
        >>> from keras_jsigr.attacks.minimum_norm.deepfool import DeepFool
        >>> DeepFool().get_config()["epsilon"] is None
        True
    """

    unlimited: ClassVar[bool] = True

    epsilon: float = math.inf
    loss: LossName = field(default="margin", init=False, repr=False)
    search_passes: int = 10

    def __post_init__(self) -> None:
        """Check the settings and bring them to their plain Python types."""
        super().__post_init__()
        passes = settings.count("search_passes", self.search_passes, minimum=0)
        self._set("search_passes", passes)

    # ---- hooks

    @abstractmethod
    def approach(
        self,
        logits_fn: LogitsFn,
        problem: Problem,
        logits: tf.Tensor,
        known: Closest,
        seed: tf.Tensor,
    ) -> tuple[Closest, tf.Tensor]:
        """Search one batch, as a pure function of tensors that can be traced.

        Args:
            logits_fn: Maps inputs to float32 logits `(B, C)`.
            problem: The batch.
            logits: Float32 `(B, C)` at the inputs.
            known: The inputs themselves, at distance zero where they fool already.
            seed: Int32 `(2,)`.

        Returns:
            The tuple of the closest points, and bool `(B,)`: the gradient was finite.
        """

    def margin(self, logits: tf.Tensor, problem: Problem) -> tf.Tensor:
        """Return what has to be positive for a point to count, float32 `(B,)`.

        It is finite, and as large as can be where the model names no class.
        """
        margin = attack_loss(logits, problem.targets, "margin")
        margin = tf.where(answered(logits), margin, margin.dtype.max)
        return -margin if self.targeted else margin

    # ---- what methods are made of

    def judge(
        self, logits_fn: LogitsFn, problem: Problem, x: tf.Tensor, known: Closest
    ) -> tuple[Closest, tf.Tensor, tf.Tensor]:
        """Ask the model at points of the search.

        Args:
            logits_fn: Maps inputs to float32 logits `(B, C)`.
            problem: The batch.
            x: Like `problem.origin`.
            known: The closest points so far.

        Returns:
            The closest points now; bool `(B,)`, `x` fools; float32 `(B,)`, by which
            margin.
        """
        seen = problem.see(x)
        logits = tf.cast(logits_fn(seen), tf.float32)
        margin = self.margin(logits, problem) - safe_margin(logits)
        seen, fools = tf.cast(seen, x.dtype), margin > 0
        return closer(known, seen, fools, problem.origin, self.norm), fools, margin

    def unfinished(self, known: Closest) -> tf.Tensor:
        """Tell which examples are still worth searching, bool `(B,)`."""
        near_enough = tf.math.is_finite(self.epsilon) & (known.distance <= self.epsilon)
        return (known.distance > 0) & ~near_enough

    def touched(self, logits_fn: LogitsFn, problem: Problem, known: Closest) -> Closest:
        """Move what was found to where the boundary is nearest; see `touch`.

        Args:
            logits_fn: Maps inputs to float32 logits `(B, C)`.
            problem: The batch.
            known: The closest points so far.

        Returns:
            Points at least as close; `known` itself with `search_passes=0`.
        """
        if self.search_passes == 0:
            return known
        rows = true_rows(self.unfinished(known) & known.found)
        part = problem.take(rows)

        def judge(x: tf.Tensor, best: Closest) -> Closest:
            return self.judge(logits_fn, part, x, best)[0]

        near = touch(
            judge, logits_fn, part, known.take(rows), self.input_range, self.norm
        )
        return put(near, rows, known)

    # ---- the contract of all attacks

    def search(
        self, logits_fn: LogitsFn, problem: Problem, seed: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Find the closest fooling points of one batch; see `Attack.search`."""
        origin = problem.origin
        logits, nothing = problem.logits(logits_fn, origin), none_closer(origin)
        wrong = self.margin(logits, problem) > 0
        known = closer(nothing, origin, wrong, origin, self.norm)
        closest, finite = self.approach(logits_fn, problem, logits, known, seed)
        closest = self._moved_back(logits_fn, problem, closest)
        x = within(closest.x, origin, self.epsilon, self.norm, self.input_range)
        return problem.see(x), finite

    def _moved_back(
        self, logits_fn: LogitsFn, problem: Problem, known: Closest
    ) -> Closest:
        rows = true_rows(self.unfinished(known) & known.found)
        part, best = problem.take(rows), known.take(rows)

        def judge(x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            return self.judge(logits_fn, part, x, best)[1:]

        x = line_search(judge, part.origin, best.x, self.search_passes)
        x = tf.cast(part.see(tf.ensure_shape(x, best.x.shape)), x.dtype)
        distance = lengths(x - part.origin, self.norm)
        return put(Closest(x, distance), rows, known)

    def __call__(
        self,
        model: Any,
        x: Any,
        y: Any = None,
        *,
        epsilons: Sequence[float] | None = None,
        region: Any = None,
    ) -> Any:
        """Attack `model` at `x`; see the class for arguments and result."""
        if epsilons is None:
            return super().__call__(model, x, y, region=region)
        radii = [self.at(epsilon).epsilon for epsilon in epsilons]
        free = self.at(math.inf)
        x_adv = run_batches(free, self._programs, model, x, y, region=region)
        return [self._limited(x, x_adv, radius) for radius in radii]

    def _limited(self, x: Any, x_adv: Any, epsilon: float) -> Any:
        dtype = working_dtype(x_adv.dtype)
        radius, parts = tf.constant(epsilon, dtype), []
        for start in range(0, len(x_adv), self.batch_size):
            rows = slice(start, start + self.batch_size)
            origin, point = (tf.cast(t[rows], dtype) for t in (x, x_adv))
            near = within(point, origin, radius, self.norm, self.input_range)
            parts.append(round_towards(near, origin, tf.as_dtype(x_adv.dtype)))
        if isinstance(x_adv, np.ndarray):
            return np.concatenate([part.numpy() for part in parts])
        return tf.concat(parts, axis=0)


def within(
    x: tf.Tensor,
    origin: tf.Tensor,
    epsilon: tf.Tensor,
    norm: str,
    input_range: tuple[float, float],
) -> tf.Tensor:
    """Project the points that are farther than `epsilon`; leave the others alone.

    Args:
        x: Float32 or float64 `(B, *S)`.
        origin: Like `x`, the inputs.
        epsilon: Scalar of the same dtype, the radius in input units, or infinity.
        norm: `"linf"`, `"l2"` or `"l1"`.
        input_range: `(low, high)` in input units.

    Returns:
        Like `x`.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.attacks.minimum_norm.minimum_norm import within
        >>> x, origin = tf.constant([[0.5], [0.75]]), tf.zeros((2, 1))
        >>> within(x, origin, tf.constant(0.5), "linf", (0.0, 1.0)).numpy().tolist()
        [[0.5], [0.5]]
    """
    far = lengths(x - origin, norm) > epsilon
    near = BALLS[norm](origin, epsilon, input_range).project(x)
    return tf.ensure_shape(tf.where(like(far, x), near, x), x.shape)


def refuse_targeted(attack: MinimumNormAttack) -> None:
    """Check that a method without targets was given none.

    Args:
        attack: The attack.

    Raises:
        ValueError: If it is targeted.

    Example:
        >>> from keras_jsigr.attacks.minimum_norm.deepfool import DeepFool
        >>> from keras_jsigr.attacks.minimum_norm.minimum_norm import refuse_targeted
        >>> refuse_targeted(DeepFool())
    """
    if attack.targeted:
        raise ValueError(
            f"`{type(attack).__name__}` has no targeted form: got targeted=True, "
            "expected False. Use CarliniWagner to reach a given class."
        )
