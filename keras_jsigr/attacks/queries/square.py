"""The Square attack: random search with windows, by the model's outputs alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import keras
import tensorflow as tf

from keras_jsigr.attacks.attack import Access, Attack
from keras_jsigr.attacks.objectives.losses import LossName
from keras_jsigr.attacks.queries.square_moves import MOVES
from keras_jsigr.attacks.search.found import Found, choose, stronger
from keras_jsigr.attacks.search.judge import judge
from keras_jsigr.attacks.search.problem import Problem
from keras_jsigr.attacks.search.random_search import random_search
from keras_jsigr.attacks.search.seeds import fold_in
from keras_jsigr.core import settings
from keras_jsigr.core.logits import LogitsFn

# One look at the input itself and one at the stripes.
_BEFORE_WINDOWS = 2


@keras.saving.register_keras_serializable(package="keras_jsigr")
@dataclass(frozen=True, kw_only=True)
class Square(Attack):
    """Repaint random windows and keep what raises the loss; no gradient is used.

    It starts from stripes at the edge of the ball and proposes one window per query,
    at a random place and in random colours; the windows shrink by a fixed schedule.
    What works against a model that hides its gradients. Examples are left alone as
    soon as they are misclassified.

    Sequences `(T, D)` are treated as images of a single column, so that a window is a
    span of time, and features `(F,)` as such a sequence of one channel: they have no
    neighbours by nature, but the small windows at the end need none.

    Args:
        epsilon: Radius in input units, >= 0.
        queries: Number of times the model is asked per example and restart, >= 2.
        p_init: Fraction of the image that the first windows cover, above 0, at most 1.
        restarts: Number of runs, each for the examples that still resist.
        norm: `"linf"`, `"l2"` or `"l1"`.
        input_range: `(low, high)` of valid inputs.
        loss: `"margin"`, the paper's; for targeted attacks it has `"cross_entropy"`.
        targeted: Whether `y` is the class to reach.
        batch_size: Number of examples worked on at once.
        seed: Of the windows and colours.
        verbose: 1 shows a progress bar, 0 none, `"auto"` one for long runs.

    Raises:
        TypeError: If a setting has the wrong type.
        ValueError: If a setting is out of range; in a call, if an example has more
            than three axes.

    Reference:
        arXiv 1912.00049; arXiv 2103.01208 (one-norm).

    Example:
        >>> import numpy as np
        >>> from keras_jsigr.attacks.queries.square import Square
        >>> x = np.array([[0.5, 0.75]], "float32")
        >>> Square(epsilon=0.25, queries=20)(lambda x: x, x, [1]).tolist()
        [[0.75, 0.5]]
    """

    access: ClassVar[Access] = "black box"

    loss: LossName = "margin"
    queries: int = 5000
    p_init: float = 0.8
    restarts: int = 1

    def __post_init__(self) -> None:
        """Check the settings and bring them to their plain Python types."""
        super().__post_init__()
        self._set(
            "queries", settings.count("queries", self.queries, minimum=_BEFORE_WINDOWS)
        )
        p_init = settings.number("p_init", self.p_init, minimum=0.0, above=True)
        if p_init > 1.0:
            raise ValueError(
                f"`p_init` is out of range: got {self.p_init!r}, expected a fraction "
                "of the image, above 0 and at most 1. Keep the default if in doubt."
            )
        self._set("p_init", p_init)
        self._set("restarts", settings.count("restarts", self.restarts))

    @property
    def passes(self) -> int:
        """Number of queries per example."""
        return self.queries * self.restarts

    def search(
        self, logits_fn: LogitsFn, problem: Problem, seed: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Attack one batch; see `Attack.search`."""

        def look(part: Problem, x: tf.Tensor) -> Found:
            return judge(self, logits_fn, part, x)

        def restart(number: tf.Tensor, best: Found) -> Any:
            moves = MOVES[self.norm](self, problem, fold_in(seed, number))
            start = look(problem, moves.start())
            found = random_search(
                look,
                problem,
                choose(best.success, best, start),
                moves.for_part,
                self.queries - _BEFORE_WINDOWS,
            )
            return number + 1, stronger(found, best)

        best = look(problem, problem.origin)
        _, best = tf.while_loop(
            lambda number, best: (
                (number < self.restarts) & tf.reduce_any(~best.success)
            ),
            restart,
            (tf.constant(0), best),
        )
        return problem.see(best.x), tf.ones_like(best.success)
