"""What the rules of the gradient-masking diagnostics share: attacks and statistics."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from keras_jsigr.attacks.base import AttackContext, NoGradient, find_no_gradient
from keras_jsigr.attacks.norms import working_dtype
from keras_jsigr.attacks.pgd import FGSM, PGD
from keras_jsigr.attacks.suite import attacked
from keras_jsigr.core.batching import (
    PROGRAMS,
    classified_rightly,
    open_batch,
    parallel_batches,
    predict_logits,
    probe_rows,
)
from keras_jsigr.core.logits import LogitsFn, as_logits
from keras_jsigr.core.scores import target_rows
from keras_jsigr.evaluation.run import AttackFailedError, Threat

Bools = npt.NDArray[np.bool_]
Rows = npt.NDArray[np.int64]


class NotApplicableError(Exception):
    """The rule has nothing to judge: its finding is "skipped"."""


@dataclass(frozen=True, kw_only=True)
class DiagnosticContext(Threat):
    """A checked call of `diagnostics`, and the attacks that several rules need."""

    PGD_STEPS: ClassVar[int] = 50  # a usual first attack; MoreSteps asks if it suffices

    model: Any
    x: npt.NDArray[Any]
    y: npt.NDArray[np.int64]
    classes: int
    surrogates: dict[str, Any] = field(default_factory=dict)
    results: dict[str, npt.NDArray[Any]] = field(default_factory=dict)

    @cached_property
    def attackable(self) -> LogitsFn:
        """The logits with a gradient, zero where the model has none."""
        logits_fn = as_logits(self.model, probe_rows(self.x))

        def logits(x: tf.Tensor) -> tf.Tensor:
            flat = tf.cast(tf.reshape(x, (tf.shape(x)[0], -1)), tf.float32)
            return logits_fn(x) + 0.0 * tf.reduce_sum(flat, axis=-1, keepdims=True)

        return logits

    @cached_property
    def no_gradient(self) -> NoGradient | None:
        """Why the model has no gradient, if it has none."""
        return find_no_gradient(self.model, self.x)

    @property
    def settings(self) -> dict[str, Any]:
        """What all attacks have in common."""
        return {**self.threat, "verbose": 0}

    @cached_property
    def logits(self) -> npt.NDArray[Any]:
        """The logits of all examples without attack."""
        return self._logits(self.x)

    @cached_property
    def right(self) -> Bools:
        """Per example: right without attack."""
        return classified_rightly(self.logits, self.y)

    @property
    def rows(self) -> Rows:
        """The examples that are right without attack, at least one."""
        rows = np.flatnonzero(self.right)
        if not len(rows):
            raise NotApplicableError("No example is classified rightly without attack.")
        return rows

    @cached_property
    def pgd(self) -> PGD:
        """PGD with one random start; one object, so that it is compiled once."""
        return PGD(steps=self.PGD_STEPS, early_stop=True, **self.settings)

    @cached_property
    def under_fgsm(self) -> Bools:
        """Per example: right without attack and under one step from `x`."""
        return self.under(FGSM(**self.settings))

    @cached_property
    def under_pgd(self) -> Bools:
        """Per example: right without attack and under PGD."""
        return self.under(self.pgd)

    @cached_property
    def under_white_box(self) -> Bools:
        """Per example: right under PGD and at the points given."""
        right = self.under_pgd.copy()
        for points in self.results.values():
            right &= classified_rightly(self._logits(points), self.y)
        return right

    def under(self, attack: Any, rows: Rows | None = None, source: Any = None) -> Bools:
        """Attack examples, against `source` if given; tell who stays right."""
        rows = self.rows if rows is None else rows
        right = np.zeros(len(self.x), bool)
        source = self.attackable if source is None else source
        done = attacked(attack, source, self._logits, self.x, self.y, rows)
        if done.crashed:
            raise AttackFailedError(done.error)
        right[rows] = ~done.broken
        return right

    def _logits(self, points: Any) -> npt.NDArray[Any]:
        return predict_logits(self.attackable, points, self.batch_size)

    def compute(
        self,
        name: str,
        body: Callable[..., Any],
        rows: Rows,
        *numbers: float,
        others: Rows | None = None,
    ) -> list[npt.NDArray[Any]]:
        """Run `body(batch, *numbers, x[others])`, compiled, batch by batch."""

        def build(logits_fn: LogitsFn, probe: tf.Tensor, classes: int) -> Any:
            rows, seed = tf.TensorSpec((None, classes)), tf.TensorSpec((2,), tf.int32)
            more = [] if others is None else [open_batch(probe)]
            signature = [open_batch(probe), rows, seed]
            signature += [*(tf.TensorSpec(()) for _ in numbers), *more]

            def run(x: Any, targets: Any, seed: Any, *more: Any) -> Any:
                epsilon = tf.cast(self.epsilon, working_dtype(x.dtype))
                limits: Any = (epsilon, seed, self.norm, self.input_range)
                return body(AttackContext(logits_fn, x, targets, *limits), *more)

            return run, signature

        probe = probe_rows(self.x)
        run = PROGRAMS.get(name, build, self.attackable, probe).run
        scalars = [tf.constant(number, tf.float32) for number in numbers]

        def run_batch(at: slice) -> Any:
            x, y = self.x[rows[at]], self.y[rows[at]]
            targets = target_rows(y, len(y), self.classes)
            seed = tf.constant([self.seed, at.start // self.batch_size], tf.int32)
            more = [] if others is None else [tf.convert_to_tensor(self.x[others[at]])]
            return run(tf.convert_to_tensor(x), targets, seed, *scalars, *more)

        parts = list(parallel_batches(run_batch, len(rows), self.batch_size))
        return [np.concatenate(column) for column in zip(*parts, strict=True)]


# All rules together make some twenty tests: an honest model at the edge of every
# tolerance is accused once in fifty evaluations, any other hardly ever.
SIGNIFICANCE = 1e-3


def tail_probability(count: int, total: int, share: float) -> float:
    """Compute the binomial probability of at least `count` hits among `total`."""
    if count <= 0:
        return 1.0
    hit, miss, lgamma = math.log(share), math.log1p(-share), math.lgamma

    def term(k: int) -> float:
        choices = lgamma(total + 1) - lgamma(k + 1) - lgamma(total - k + 1)
        return math.exp(choices + k * hit + (total - k) * miss)

    return min(1.0, math.fsum(map(term, range(count, total + 1))))


def clearly_more(count: int, total: int, share: float) -> bool:
    """Tell whether hits are more than `share` of `total`, and not by chance."""
    above = count > share * total
    return above and tail_probability(count, total, share) < SIGNIFICANCE


def clearly_moved(to: int, back: int, total: int, share: float) -> bool:
    """Tell whether examples changed sides in one direction, and not by chance."""
    chance = tail_probability(to, to + back, 0.5)
    return to - back > share * total and chance < SIGNIFICANCE


def standard_error(values: npt.NDArray[Any]) -> float:
    """Estimate the standard error of a mean, infinite for fewer than ten values."""
    few = len(values) < 10
    return math.inf if few else float(values.std(ddof=1) / math.sqrt(len(values)))
