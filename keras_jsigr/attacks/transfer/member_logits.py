"""Logits of a model whose head is found at the first call."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from keras_jsigr.core.logits import LogitsFn, as_logits


class MemberLogits:
    """Map inputs to the logits of a model that another callable is made of.

    Args:
        model: A Keras model (a softmax or sigmoid head is seen behind), a hardened
            model, or a callable that returns logits or probabilities.

    Raises:
        TypeError: If `model` cannot be called.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.attacks.transfer.member_logits import MemberLogits
        >>> MemberLogits(lambda x: 2.0 * x)(tf.ones((1, 2))).numpy().tolist()
        [[2.0, 2.0]]
    """

    def __init__(self, model: Any) -> None:
        if not callable(model):
            raise TypeError(
                f"Got {type(model).__name__} for a model, expected a Keras model or a "
                "callable that returns logits. Pass the model itself, not its path."
            )
        self.model = model
        self._logits: LogitsFn | None = None

    def __call__(self, x: Any) -> tf.Tensor:
        """Return float32 logits `(B, C)`, `C >= 2`."""
        x = tf.convert_to_tensor(x)
        if self._logits is None:
            # A head is found by numbers, which a graph in the making does not have.
            with tf.init_scope():
                self._logits = as_logits(self.model, _probe(x))
        return self._logits(x)


def _probe(x: tf.Tensor) -> tf.Tensor:
    if not tf.is_symbolic_tensor(x):
        return x
    if None in x.shape[1:]:
        raise ValueError(
            f"Got inputs of the open shape {tuple(x.shape)} inside a tf.function, "
            "expected a fixed one. Call the model once on a batch first."
        )
    shape = (2, *x.shape[1:])
    return tf.random.stateless_uniform(shape, (0, 0), dtype=x.dtype)
