"""What one batch asks of an attack."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from keras_jsigr.attacks.search.rounding import round_towards, working_dtype
from keras_jsigr.core.logits import LogitsFn


class Problem(NamedTuple):
    """Hold the inputs of one batch, their labels, and where they may change.

    Attributes:
        x: Float `(B, *S)`, the inputs as the model takes them.
        targets: Float32 `(B, C)`: the class to leave or, targeted, to reach.
        region: Like `x` in the working dtype, one where the input may change and zero
            elsewhere; `None`: it may change everywhere.
        goals: Float32 `(B, C)`: the class that an untargeted attack heads for, if it
            heads for one; else `None`.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.attacks.search.problem import Problem
        >>> region = tf.constant([[1.0, 0.0]])
        >>> problem = Problem(tf.zeros((1, 2)), tf.constant([[0.0, 1.0]]), region)
        >>> problem.see(tf.ones((1, 2))).numpy().tolist()
        [[1.0, 0.0]]
    """

    x: tf.Tensor
    targets: tf.Tensor
    region: tf.Tensor | None = None
    goals: tf.Tensor | None = None

    @property
    def origin(self) -> tf.Tensor:
        """The inputs in the dtype that the attack computes in."""
        return tf.cast(self.x, working_dtype(self.x.dtype))

    def see(self, point: tf.Tensor) -> tf.Tensor:
        """Return what the model receives for a point of the search.

        Args:
            point: Like `origin`.

        Returns:
            Like `x`: unchanged outside the region, rounded towards `origin`.
        """
        # At the start `point` may be the very tensor that `origin` is.
        origin = tf.stop_gradient(self.origin)
        if self.region is not None:
            point = tf.where(self.region > 0, point, origin)
        return round_towards(point, origin, self.x.dtype)

    def logits(self, logits_fn: LogitsFn, point: tf.Tensor) -> tf.Tensor:
        """Return the model's logits `(B, C)` in float32 at a point of the search."""
        return tf.cast(logits_fn(self.see(point)), tf.float32)

    def take(self, rows: tf.Tensor) -> Problem:
        """Return the problem of some examples.

        Args:
            rows: Int32 `(A,)`, their numbers.

        Returns:
            The problem with `A` examples.
        """
        return Problem(*(None if t is None else tf.gather(t, rows) for t in self))
