"""The model under evaluation: its gradient, and what it is asked."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import tensorflow as tf

from keras_jsigr.core.batching import open_batch, probe_rows, runs_python
from keras_jsigr.core.logits import as_logits
from keras_jsigr.core.variables import OWN


class NoGradient(NamedTuple):
    """Why a model has no gradient; `python`: it runs code TensorFlow cannot see."""

    reason: str
    python: bool


def find_no_gradient(model: Any, x: Any) -> NoGradient | None:
    """Tell why no gradient reaches the input, or `None` if one does."""
    probe = probe_rows(x)
    logits_fn = as_logits(model, probe)
    try:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(probe)
            energy = tf.reduce_sum(tf.square(logits_fn(probe)))
        gradient = tape.gradient(energy, probe)
    except Exception:  # of an operation without a derivative, or of its code
        gradient = None
    # TensorFlow returns a scalar for a `tf.py_function` that its tape does not see.
    if gradient is not None and gradient.shape == probe.shape:
        return None
    run = tf.function(logits_fn, autograph=False)
    python = runs_python(run.get_concrete_function(open_batch(probe)))
    reason = (
        "The model has code that TensorFlow cannot differentiate (tf.numpy_function or "
        "tf.py_function), so it has no gradient."
        if python
        else "No gradient passes through the model's operations (rounding, thresholds, "
        "argmax, casts to integers)."
    )
    return NoGradient(reason, python)


class CountedModel:
    """A callable that counts the examples it is asked about, in programs too."""

    def __init__(self, model: Any, limit: int | None = None) -> None:
        self.model, self.limit = model, limit
        self._asked = tf.Variable(0, dtype=tf.int64, trainable=False, name=OWN)

    def __call__(self, x: Any) -> Any:
        """Answer as the model does."""
        self._asked.assign_add(tf.cast(tf.shape(x)[0], tf.int64))
        return self.model(x)

    @property
    def asked(self) -> int:
        """How many examples it was asked about."""
        return int(self._asked)

    def can_answer(self, questions: float) -> bool:
        """Tell whether so many questions are left of the limit."""
        return self.limit is None or self.asked + questions <= self.limit

    def affordable(self, attack: Any, examples: int, share: int = 1) -> Any:
        """Return an attack on so many examples for a share of what is left, or None."""
        if self.limit is None or not examples:
            return attack
        # Besides the search: tries of the compiler, and two looks at each point.
        left = (self.limit - self.asked) / share - 64 - 3 * examples
        each = int(left // examples)
        if attack.passes <= each:
            return attack
        try:
            return dataclasses.replace(attack, queries=each)
        except (TypeError, ValueError):  # no such setting, or too few for the method
            return None
