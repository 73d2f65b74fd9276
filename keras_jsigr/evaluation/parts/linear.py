"""The linearized robustness as a part of the evaluation."""

from __future__ import annotations

import numpy as np

from keras_jsigr.evaluation.json_codec import from_json, to_json
from keras_jsigr.evaluation.linearized import linearized_record, linearized_robustness
from keras_jsigr.evaluation.records import LinearizedRecord
from keras_jsigr.evaluation.store import Piece, array_digest
from keras_jsigr.evaluation.task import Task

# A reverse pass each: with many classes, only the likely ones are considered.
RIVALS = 9


def linearize(task: Task) -> LinearizedRecord | None:
    """Sum up the linearized robustness of the rightly classified examples.

    Those without a finite gradient are left out, and told among the errors.

    Args:
        task: The evaluation.

    Returns:
        The record; `None` if no example is classified rightly.

    Raises:
        ValueError: If none of them has a finite gradient.
    """
    if not task.right.any():
        return None

    def make() -> Piece:
        values = linearized_robustness(
            task.model,
            task.x[task.right],
            norm=task.norm,
            rivals=RIVALS,
            batch_size=task.batch_size,
        )
        record = to_json(linearized_record(values, task.norm))
        lost = int(np.isnan(values.robustness).sum())
        return Piece({}, {"record": record, "not_finite": lost})

    settings = {"norm": task.norm, "rivals": RIVALS, "rows": array_digest(task.right)}
    info = task.store.piece("linearized", settings, make).info
    # Pieces of older evaluations do not say.
    if lost := info.get("not_finite", 0):
        task.log.errors.append(
            f"linearized: the gradient is NaN or infinite at {lost} of "
            f"{int(task.right.sum())} examples, which are left out."
        )
    record: LinearizedRecord = from_json(LinearizedRecord, to_json(info["record"]))
    return record
