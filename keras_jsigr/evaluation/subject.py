"""The model under evaluation: what it is asked."""

from __future__ import annotations

import dataclasses
from typing import Any

import tensorflow as tf

from keras_jsigr.core.variables import OWN


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
