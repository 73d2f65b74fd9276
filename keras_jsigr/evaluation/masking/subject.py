"""The model under diagnosis, and what its rules share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from keras_jsigr.attacks import FGSM, PGD
from keras_jsigr.attacks.calls.labels import target_rows
from keras_jsigr.attacks.calls.predictions import classified_rightly, predict_logits
from keras_jsigr.attacks.calls.programs import Programs
from keras_jsigr.core.logits import LogitsFn, as_logits
from keras_jsigr.evaluation.masking.verdict import NotApplicableError

Bools = npt.NDArray[np.bool_]
Rows = npt.NDArray[np.int64]

# The usual strength of a first white-box attack; rule more_steps asks whether it is
# enough.
PGD_STEPS = 50
_PROBES = 16


@dataclass(kw_only=True)
class Subject:
    """Hold a checked call of `diagnostics` and every attack that several rules need.

    Attributes:
        model: The model as it was given.
        x: Float `(N, *S)`, the examples to use.
        y: Integers `(N,)`.
        classes: Number of classes.
        epsilon: Radius in input units.
        norm: Of the perturbation.
        input_range: `(low, high)` of valid inputs.
        surrogates: Other models by name.
        results: Points like `x` that white-box attacks found, by name.
        batch_size: Examples per call of the model.
        seed: Of everything random.
    """

    model: Any
    x: npt.NDArray[Any]
    y: npt.NDArray[np.int64]
    classes: int
    epsilon: float
    norm: str
    input_range: tuple[float, float]
    surrogates: dict[str, Any] = field(default_factory=dict)
    results: dict[str, npt.NDArray[Any]] = field(default_factory=dict)
    batch_size: int = 128
    seed: int = 0
    _programs: Programs = field(default_factory=Programs, init=False, repr=False)

    @cached_property
    def attackable(self) -> LogitsFn:
        """The logits with a gradient, be it zero, even where the model has none."""
        logits_fn = as_logits(self.model, self.x[:_PROBES])

        def logits(x: tf.Tensor) -> tf.Tensor:
            flat = tf.cast(tf.reshape(x, (tf.shape(x)[0], -1)), tf.float32)
            return logits_fn(x) + 0.0 * tf.reduce_sum(flat, axis=-1, keepdims=True)

        return logits

    @property
    def settings(self) -> dict[str, Any]:
        """What all attacks have in common."""
        return {
            "epsilon": self.epsilon,
            "norm": self.norm,
            "input_range": self.input_range,
            "batch_size": self.batch_size,
            "seed": self.seed,
            "verbose": 0,
        }

    # ---- who is still right

    @cached_property
    def right(self) -> Bools:
        """Per example: right without attack."""
        return self.judge(self.x, np.arange(len(self.x)))

    @property
    def rows(self) -> Rows:
        """The examples that are right without attack, at least one."""
        rows = np.flatnonzero(self.right)
        if not len(rows):
            raise NotApplicableError("No example is classified rightly without attack.")
        return rows

    @cached_property
    def pgd(self) -> PGD:
        """PGD-50 with one random start; compiled once for all radii."""
        return PGD(steps=PGD_STEPS, early_stop=True, **self.settings)

    @cached_property
    def under_fgsm(self) -> Bools:
        """Per example: right without attack and under one step from `x`."""
        return self.under(FGSM(**self.settings))

    @cached_property
    def under_pgd(self) -> Bools:
        """Per example: right without attack and under PGD-50."""
        return self.under(self.pgd)

    @cached_property
    def under_white_box(self) -> Bools:
        """Per example: right under PGD-50 and at the points given."""
        right = self.under_pgd.copy()
        for points in self.results.values():
            right &= self.judge(points, np.arange(len(self.x)))
        return right

    def under(self, attack: Any, rows: Rows | None = None, model: Any = None) -> Bools:
        """Attack examples and tell which stay right.

        Args:
            attack: With its radius.
            rows: Integers: the examples to attack; `None`: those right without.
            model: The model to attack; `None`: the one under diagnosis.

        Returns:
            Bool `(N,)`: among `rows` and still right.
        """
        rows = self.rows if rows is None else rows
        right = np.zeros(len(self.x), bool)
        if len(rows):
            source = self.attackable if model is None else model
            points = attack(source, self.x[rows], self.y[rows])
            right[rows] = self.judge(points, rows)
        return right

    def judge(self, points: Any, rows: Rows) -> Bools:
        """Tell which points, of examples `rows`, are classified rightly."""
        logits = predict_logits(self.attackable, points, self.batch_size)
        return classified_rightly(logits, self.y[rows])

    # ---- computations of a rule's own

    def compute(
        self, name: str, body: Callable[..., Any], rows: Rows, *numbers: float
    ) -> list[npt.NDArray[Any]]:
        """Run a function of tensors on examples, compiled and batch by batch.

        Args:
            name: Tells apart the functions of all rules.
            body: Maps logits function, examples, float32 label rows `(B, C)`, int32
                seed `(2,)` and `numbers` to a tuple of tensors `(B,)`.
            rows: Integers: the examples, at least one.
            *numbers: Float32 scalars for `body`, compiled once for all values.

        Returns:
            One array `(len(rows),)` per tensor.
        """

        def build(logits_fn: LogitsFn, probe: tf.Tensor, classes: int) -> Any:
            def run(x: tf.Tensor, targets: tf.Tensor, seed: Any, *rest: Any) -> Any:
                return body(logits_fn, x, targets, seed, *rest)

            signature = [
                tf.TensorSpec((None, *probe.shape[1:]), probe.dtype),
                tf.TensorSpec((None, classes), tf.float32),
                tf.TensorSpec((2,), tf.int32),
                *(tf.TensorSpec((), tf.float32) for _ in numbers),
            ]
            return run, signature

        probe = tf.convert_to_tensor(self.x[:_PROBES])
        run = self._programs.get(name, build, self.attackable, probe).run
        scalars = [tf.constant(number, tf.float32) for number in numbers]
        parts = []
        for number, start in enumerate(range(0, len(rows), self.batch_size)):
            part = rows[start : start + self.batch_size]
            x = tf.convert_to_tensor(self.x[part])
            targets = target_rows(self.y[part], len(part), self.classes)
            seed = tf.constant([self.seed, number], tf.int32)
            parts.append([t.numpy() for t in run(x, targets, seed, *scalars)])
        return [np.concatenate(column) for column in zip(*parts, strict=True)]
