"""The linearized robustness as a part of the evaluation."""

from __future__ import annotations

from keras_jsigr.evaluation.json_codec import from_json, to_json
from keras_jsigr.evaluation.linearized import linearized_record, linearized_robustness
from keras_jsigr.evaluation.records import LinearizedRecord
from keras_jsigr.evaluation.store import Piece, array_digest
from keras_jsigr.evaluation.task import Task

# A reverse pass each: with many classes, only the likely ones are considered.
RIVALS = 9


def linearize(task: Task) -> LinearizedRecord | None:
    """Sum up the linearized robustness of the rightly classified examples.

    Args:
        task: The evaluation.

    Returns:
        The record; `None` if no example is classified rightly.
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
        return Piece({}, {"record": to_json(linearized_record(values, task.norm))})

    settings = {"norm": task.norm, "rivals": RIVALS, "rows": array_digest(task.right)}
    info = task.store.piece("linearized", settings, make).info
    record: LinearizedRecord = from_json(LinearizedRecord, to_json(info["record"]))
    return record
