"""HopSkipJump: the closest fooling point, from the model's decisions alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import keras
import tensorflow as tf

from keras_jsigr.attacks.attack import Access
from keras_jsigr.attacks.minimum_norm.closest import Closest
from keras_jsigr.attacks.minimum_norm.minimum_norm import MinimumNormAttack
from keras_jsigr.attacks.objectives.answered import answered
from keras_jsigr.attacks.objectives.losses import misclassified
from keras_jsigr.attacks.queries.boundary_walk import BoundaryWalk
from keras_jsigr.attacks.search.problem import Problem
from keras_jsigr.attacks.search.seeds import fold_in
from keras_jsigr.core import settings
from keras_jsigr.core.logits import LogitsFn


@keras.saving.register_keras_serializable(package="keras_jsigr")
@dataclass(frozen=True, kw_only=True)
class HopSkipJump(MinimumNormAttack):
    """Walk along the decision boundary, asking only which class the model decides for.

    From a fooling point it goes in turn to the boundary (by halving), along the
    boundary's normal, estimated from decisions around, into the fooling side, and back
    to the boundary nearer the input. Neither logits nor gradients are used, so no
    masking of them helps a model.

    It starts from the nearest example of the batch that the model puts into another
    class or, targeted, into the class to reach; else from noise. Where nothing fools
    the model, the input is returned: a targeted attack wants examples of the classes
    to reach in the batch.

    Args:
        epsilon: Radius in input units, >= 0; infinity (in a configuration `None`) sets
            no limit.
        queries: The largest number of decisions asked for per example, >= 200.
        norm: `"l2"` or `"linf"`.
        input_range: `(low, high)` of valid inputs.
        targeted: Whether `y` is the class to reach.
        batch_size: Number of examples worked on at once.
        seed: Of the noise and the directions.
        verbose: 1 shows a progress bar, 0 none, `"auto"` one for long runs.

    Raises:
        TypeError: If a setting has the wrong type.
        ValueError: If a setting is out of range.

    Reference:
        arXiv 1904.02144.

    Example:
        >>> import numpy as np
        >>> from keras_jsigr.attacks.queries.hopskipjump import HopSkipJump
        >>> x = np.array([[0.5, 0.75], [0.75, 0.25]], "float32")
        >>> x_adv = HopSkipJump(queries=500)(lambda x: x, x)
        >>> [round(float(r), 2) for r in np.linalg.norm(x_adv - x, axis=1)]
        [0.18, 0.35]
    """

    access: ClassVar[Access] = "decision"

    norm: str = "l2"
    queries: int = 5000
    # The base's line search interpolates margins, which decisions do not give.
    search_passes: int = field(default=0, init=False, repr=False)

    def __post_init__(self) -> None:
        """Check the settings and bring them to their plain Python types."""
        super().__post_init__()
        settings.choice("norm", self.norm, ("l2", "linf"))
        self._set("queries", settings.count("queries", self.queries, minimum=200))

    @property
    def passes(self) -> int:
        """Number of queries per example."""
        return self.queries

    def margin(self, logits: tf.Tensor, problem: Problem) -> tf.Tensor:
        """Return one where the decision fools and minus one elsewhere, `(B,)`."""
        fools = misclassified(logits, problem.targets) != self.targeted
        return tf.where(fools, 1.0, -1.0)

    def approach(
        self,
        logits_fn: LogitsFn,
        problem: Problem,
        logits: tf.Tensor,
        known: Closest,
        seed: tf.Tensor,
    ) -> tuple[Closest, tf.Tensor]:
        """Walk along the boundary; see `MinimumNormAttack.approach`."""
        walk = BoundaryWalk(self, logits_fn, problem)
        # Where the model names no class, none: also no class to reach.
        decisions = tf.where(answered(logits), tf.argmax(logits, axis=-1), -1)
        best, asked = walk.start(known, decisions, fold_in(seed, 0))

        def turn(
            number: tf.Tensor, left: tf.Tensor, x: tf.Tensor, best: Closest
        ) -> Any:
            draws, now = walk.draws(number, left), fold_in(seed, number)
            x, best, queries = walk.turn(x, best, number, draws, now)
            return number + 1, left - queries, x, best

        def worth_it(
            number: tf.Tensor, left: tf.Tensor, x: tf.Tensor, best: Closest
        ) -> tf.Tensor:
            return (walk.draws(number, left) > 0) & tf.reduce_any(walk.going_on(best))

        start = (tf.constant(1), tf.constant(self.queries - asked), best.x, best)
        end: tuple[Any, Any, Any, Closest] = tf.while_loop(worth_it, turn, start)
        return end[3], tf.ones_like(best.found)
