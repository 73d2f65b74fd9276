"""The saliency maps as a part of the evaluation."""

from __future__ import annotations

from typing import Any

from keras_jsigr.evaluation.identity import model_identity
from keras_jsigr.evaluation.interpretability.figures import unknown_values
from keras_jsigr.evaluation.interpretability.map_task import MapTask
from keras_jsigr.evaluation.interpretability.measure import measure
from keras_jsigr.evaluation.json_codec import from_json, to_json
from keras_jsigr.evaluation.parts.own_code import class_identity
from keras_jsigr.evaluation.saliency_records import SaliencyRecord
from keras_jsigr.evaluation.store import Piece, array_digest
from keras_jsigr.evaluation.task import Task
from keras_jsigr.saliency.methods.method import SaliencyMethod


def measure_saliency(task: Task, maps: MapTask) -> SaliencyRecord:
    """Measure the maps of the rightly classified examples.

    Args:
        task: The evaluation.
        maps: What to measure of the maps.

    Returns:
        The record.

    Raises:
        ValueError: If no example is classified rightly.
    """

    def make() -> Piece:
        record = measure(task.model, task.x, task.y, maps, used=task.right)
        # What has no finite value will have none the next time either.
        crashed = set(record.errors) - set(unknown_values(record.figures))
        return Piece({}, {"record": to_json(record)}, whole=not crashed)

    settings = {
        **maps.get_config(),
        "method": _identity(maps.method),
        "teacher": maps.teacher and model_identity(maps.teacher, task.x),
        "boxes": None if maps.boxes is None else array_digest(maps.boxes),
        "rows": array_digest(task.right),
    }
    info = task.store.piece("saliency", settings, make).info
    record: SaliencyRecord = from_json(SaliencyRecord, to_json(info["record"]))
    task.log.errors.extend(f"saliency, {error}" for error in record.errors)
    return record


def _identity(method: str | SaliencyMethod) -> str | dict[str, Any]:
    """Return what tells apart two methods: class, settings and own code."""
    if isinstance(method, str):
        return method
    return {"settings": repr(method), **class_identity(type(method))}
