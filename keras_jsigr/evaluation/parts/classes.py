"""The accuracies class by class."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from keras_jsigr.evaluation.rate import Rate
from keras_jsigr.evaluation.records import ClassRecord
from keras_jsigr.evaluation.task import Task


def by_class(task: Task, robust: npt.NDArray[np.bool_]) -> list[ClassRecord]:
    """Count right answers per class; classes without examples are left out.

    Args:
        task: The evaluation.
        robust: Bool `(N,)`: right under every attack.

    Returns:
        One record per class, in their order.
    """

    def rate(right: npt.NDArray[Any], rows: npt.NDArray[Any]) -> Rate:
        return Rate(int(right[rows].sum()), int(rows.sum()))

    return [
        ClassRecord(name=name, clean=rate(task.right, rows), robust=rate(robust, rows))
        for number, name in enumerate(task.class_names)
        if (rows := task.y == number).any()
    ]


def chance(labels: npt.NDArray[np.int64], classes: int) -> float:
    """Return the accuracy of guessing without looking.

    Args:
        labels: Integers `(N,)`.
        classes: Number of classes.

    Returns:
        The share of the largest class, or one over the number of classes if that is
        more.

    Example:
        >>> import numpy as np
        >>> from keras_jsigr.evaluation.parts.classes import chance
        >>> chance(np.array([0, 0, 0, 1]), 2)
        0.75
    """
    return max(float(np.bincount(labels).max()) / len(labels), 1.0 / classes)
