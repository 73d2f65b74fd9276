"""Labels of any form as target rows, checked before any work."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from keras_jsigr.core.class_indices import check_class_indices
from keras_jsigr.core.scores import class_targets


def target_rows(y: Any, examples: int, classes: int) -> tf.Tensor:
    """Check labels and bring them to the form of the logits.

    Args:
        y: Class indices `(N,)` or `(N, 1)`, or one-hot rows `(N, C)`; soft rows that
            sum to one are allowed.
        examples: `N`, the number of inputs.
        classes: `C`, the number of logits.

    Returns:
        Float32 `(N, C)`.

    Raises:
        ValueError: If their number, shape or values do not fit.

    Example:
        >>> from keras_jsigr.attacks.calls.labels import target_rows
        >>> target_rows([1], examples=1, classes=3).numpy().tolist()
        [[0.0, 1.0, 0.0]]
    """
    labels = np.asarray(y)
    if labels.ndim == 0 or len(labels) != examples:
        raise ValueError(
            f"`y` does not match `x`: got shape {labels.shape} for {examples} "
            "examples, expected one label per example. Select the same rows of both."
        )
    if labels.shape in ((examples,), (examples, 1)):
        check_class_indices(labels, classes)
    elif labels.shape == (examples, classes):
        _check_rows(labels)
    else:
        raise ValueError(
            f"`y` has shape {labels.shape}, expected ({examples},), ({examples}, 1) "
            f"or ({examples}, {classes}). Pass class indices or one-hot rows."
        )
    return class_targets(labels.astype("float32"), tf.zeros((1, classes)))


def _check_rows(labels: np.ndarray[Any, Any]) -> None:
    values = labels.astype("float64")
    bad = ~((values >= 0).all(axis=1) & (np.abs(values.sum(axis=1) - 1.0) < 1e-3))
    if bad.any():
        raise ValueError(
            f"`y` has a row that is no one-hot row: got {labels[bad][0]}, expected "
            "values >= 0 of sum one. Multi-label targets are not supported."
        )
