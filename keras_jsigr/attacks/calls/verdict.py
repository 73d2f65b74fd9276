"""What a model says about arrays of any size, and whether it is right."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from keras_jsigr.attacks.calls.programs import Programs
from keras_jsigr.core.heads import LogitsFn

_PROBES = 16


class Verdict:
    """Ask a model, compiled and batch by batch.

    Args:
        programs: Where compiled functions are kept.
        model: A Keras model of one input, or a callable; see `as_logits`.
        batch_size: Number of examples asked about at once.

    Example:
        >>> import numpy as np
        >>> from keras_jsigr.attacks.calls.programs import Programs
        >>> from keras_jsigr.attacks.calls.verdict import Verdict
        >>> verdict = Verdict(Programs(), lambda x: x, batch_size=2)
        >>> logits = verdict.logits(np.eye(3, dtype="float32"))
        >>> verdict.right(logits, np.array([0, 1, 0])).tolist()
        [True, True, False]
    """

    def __init__(self, programs: Programs, model: Any, batch_size: int) -> None:
        self.model = model
        self._programs = programs
        self._batch_size = batch_size

    def logits(self, x: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Return the logits.

        Args:
            x: Float `(N, *S)`, at least one example.

        Returns:
            Float32 `(N, C)`.
        """
        probe = tf.convert_to_tensor(x[:_PROBES])
        program = self._programs.get("logits", _logits, self.model, probe)
        parts = [
            program.run(tf.convert_to_tensor(x[start : start + self._batch_size]))
            for start in range(0, len(x), self._batch_size)
        ]
        return np.concatenate([part.numpy() for part in parts])

    def right(
        self, logits: npt.NDArray[Any], labels: npt.NDArray[Any]
    ) -> npt.NDArray[np.bool_]:
        """Tell which decisions are right.

        Args:
            logits: Float `(N, C)`; a row with NaN or infinity is no right answer.
            labels: Integers `(N,)`.

        Returns:
            Bool `(N,)`.
        """
        finite = np.isfinite(logits).all(axis=-1)
        right: npt.NDArray[np.bool_] = finite & (logits.argmax(axis=-1) == labels)
        return right


def _logits(logits_fn: LogitsFn, probe: tf.Tensor, classes: int) -> Any:
    del classes

    def body(x: tf.Tensor) -> tf.Tensor:
        return tf.cast(logits_fn(x), tf.float32)

    return body, [tf.TensorSpec((None, *probe.shape[1:]), probe.dtype)]
