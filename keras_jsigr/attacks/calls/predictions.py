"""Logits and decisions of any classifier on arrays of any size."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from keras_jsigr.attacks.calls.programs import Programs
from keras_jsigr.attacks.objectives.answered import answered
from keras_jsigr.core.logits import LogitsFn

PROGRAMS = Programs()
_PROBES = 16


def predict_logits(
    model: Any, x: Any, batch_size: int = 128, programs: Programs = PROGRAMS
) -> npt.NDArray[Any]:
    """Compute the logits of a model, compiled and batch by batch.

    Args:
        model: A Keras classifier, a hardened model or a callable, see `as_logits`.
        x: Float `(N, *S)`.
        batch_size: Examples per call of the model.
        programs: Where compiled functions are kept.

    Returns:
        Float32 `(N, C)`; a model of one sigmoid unit has two columns, `(0, z)`.

    Raises:
        TypeError: If `model` cannot be called.
        ValueError: If its outputs are not `(B, C)`.

    Example:
        >>> import numpy as np
        >>> from keras_jsigr.attacks.calls.predictions import predict_logits
        >>> predict_logits(lambda x: 2.0 * x, np.ones((3, 2), "float32")).tolist()
        [[2.0, 2.0], [2.0, 2.0], [2.0, 2.0]]
    """
    program = programs.get("logits", _logits, model, tf.convert_to_tensor(x[:_PROBES]))
    if len(x) == 0:
        return np.zeros((0, program.classes), np.float32)
    parts = [
        program.run(tf.convert_to_tensor(x[start : start + batch_size])).numpy()
        for start in range(0, len(x), batch_size)
    ]
    return np.concatenate(parts)


def classified_rightly(logits: Any, labels: Any) -> npt.NDArray[np.bool_]:
    """Tell per example whether the largest logit is that of the label.

    Args:
        logits: Float `(N, C)`; a row without an answer, see `answered`, is not right.
        labels: Integers `(N,)`.

    Returns:
        Bool `(N,)`.

    Example:
        >>> from keras_jsigr.attacks.calls.predictions import classified_rightly
        >>> classified_rightly([[1.0, 2.0], [1.0, 2.0]], [0, 1]).tolist()
        [False, True]
    """
    logits = np.asarray(logits)
    right: npt.NDArray[np.bool_] = answered(logits).numpy()
    right &= logits.argmax(-1) == np.asarray(labels)
    return right


def _logits(logits_fn: LogitsFn, probe: tf.Tensor, classes: int) -> Any:
    del classes
    return logits_fn, [tf.TensorSpec((None, *probe.shape[1:]), probe.dtype)]
