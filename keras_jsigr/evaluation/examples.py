"""Pictures of an example as PNG files in base64."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from keras_jsigr.attacks.norms import distance
from keras_jsigr.core.batching import predict_logits
from keras_jsigr.core.logits import has_valid_logits
from keras_jsigr.evaluation.records import ExampleRecord
from keras_jsigr.evaluation.robustness import SuiteResult
from keras_jsigr.evaluation.run import Task
from keras_jsigr.saliency.gradients import gradient_map
from keras_jsigr.saliency.plot import color_top, to_shares

# From black over red to pale yellow: brightness grows evenly, readable in grey too.
_RAMP = np.array([[0, 0, 4], [87, 16, 110], [188, 55, 84], [249, 142, 9], [252, 255, 164]], float)


def as_images(x: npt.NDArray[Any]) -> npt.NDArray[Any] | None:
    """Return examples in the shape of images, if that is what they are."""
    if x.ndim == 4 and x.shape[-1] in (1, 3):
        return x
    return x[..., None] if x.ndim == 3 and x.shape[1] == x.shape[2] else None


def image_picture(x: npt.NDArray[Any], input_range: tuple[float, float]) -> str:
    """Encode an image."""
    low, high = input_range
    return _png((x.astype(float) - low) / (high - low))


def difference_picture(difference: npt.NDArray[Any]) -> str:
    """Encode a perturbation: grey where nothing changed, amplified to full contrast."""
    largest = np.abs(difference).max()
    return _png(0.5 + 0.5 * difference / (largest if largest > 0 else 1.0))


def map_picture(values: npt.NDArray[Any]) -> str:
    """Encode a saliency map: dark is zero, bright its 99th percentile or more."""
    share = to_shares(values, color_top(values)).clip(0.0)
    stops = np.linspace(0.0, 1.0, len(_RAMP))
    channels = [np.interp(share, stops, _RAMP[:, c]) / 255.0 for c in range(3)]
    return _png(np.stack(channels, axis=-1))


def _png(x: npt.NDArray[Any]) -> str:
    bytes_ = np.clip(np.round(x * 255.0), 0, 255).astype(np.uint8)
    return base64.b64encode(tf.io.encode_png(bytes_).numpy()).decode("ascii")


# What stands for the decision where the outputs are no numbers.
_NO_CLASS = "none"


def show_examples(task: Task, result: SuiteResult, count: int) -> list[ExampleRecord]:
    """Describe some of the examples that the suite fooled the model on."""
    rows = spread(np.flatnonzero(result.fooled_by >= 0), task.y, count)
    if len(rows) == 0:
        return []
    x, x_adv = task.x[rows], result.x_adv[rows]
    logits = predict_logits(task.model, x_adv, task.batch_size)
    named = np.asarray(has_valid_logits(logits))
    lengths = distance(x_adv, x, task.norm)
    pictures = _pictures(task, x, x_adv)
    names = task.class_names
    return [
        ExampleRecord(
            index=int(row),
            label=names[task.y[row]],
            predicted=names[task.logits[row].argmax()],
            adversarial=names[logits[place].argmax()] if named[place] else _NO_CLASS,
            attack=result.records[result.fooled_by[row]].name,
            distance=float(lengths[place]),
            pictures=pictures[place],
        )
        for place, row in enumerate(rows)
    ]


def spread(
    rows: npt.NDArray[np.int64], labels: npt.NDArray[np.int64], count: int
) -> npt.NDArray[np.int64]:
    """Choose rows from all classes in turn."""
    turn = np.zeros(len(rows), np.int64)
    for label in np.unique(labels[rows]):
        mine = labels[rows] == label
        turn[mine] = np.arange(mine.sum())
    return np.sort(rows[np.argsort(turn, kind="stable")[:count]])


def _pictures(task: Task, x: npt.NDArray[Any], x_adv: npt.NDArray[Any]) -> list[dict[str, str]]:
    images, attacked = as_images(x), as_images(x_adv)
    if images is None or attacked is None:
        return [{} for _ in x]
    ends, change = task.input_range, attacked.astype(float) - images.astype(float)
    columns = {
        "image": [image_picture(image, ends) for image in images],
        "perturbation": [difference_picture(each) for each in change],
        "attacked image": [image_picture(image, ends) for image in attacked],
    }
    if task.no_gradient is None:
        # The log odds: the gradient of a log probability vanishes with confidence.
        about: Any = {"score": "margin", "batch_size": task.batch_size}
        for name, points in (("map", x), ("map, attacked", x_adv)):
            maps = gradient_map(task.model, points, layout="image", **about)
            columns[f"gradient {name}"] = [map_picture(each) for each in maps]
    rows = zip(*columns.values(), strict=True)
    return [dict(zip(columns, row, strict=True)) for row in rows]
