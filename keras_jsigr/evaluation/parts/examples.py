"""Some fooled examples, for the eye."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from keras_jsigr.attacks.calls.inside import distance
from keras_jsigr.attacks.calls.predictions import predict_logits
from keras_jsigr.attacks.objectives.answered import answered
from keras_jsigr.evaluation.parts.pictures import (
    as_images,
    difference_picture,
    image_picture,
    map_picture,
)
from keras_jsigr.evaluation.parts.suite import SuiteResult
from keras_jsigr.evaluation.records import ExampleRecord
from keras_jsigr.evaluation.task import Task
from keras_jsigr.saliency.gradient_map import gradient_map

# What stands for the decision where the outputs are no numbers.
_NO_CLASS = "none"


def show_examples(task: Task, result: SuiteResult, count: int) -> list[ExampleRecord]:
    """Describe some of the examples that the suite fooled the model on.

    Args:
        task: The evaluation.
        result: Of the suite.
        count: How many at most.

    Returns:
        One record each: of every class the first, then the second and so on.
    """
    rows = spread(np.flatnonzero(result.fooled_by >= 0), task.y, count)
    if len(rows) == 0:
        return []
    x, x_adv = task.x[rows], result.x_adv[rows]
    logits = predict_logits(task.model, x_adv, task.batch_size)
    named = np.asarray(answered(logits))
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
    """Choose rows from all classes in turn.

    Args:
        rows: Integers, ascending.
        labels: Integers `(N,)`.
        count: How many at most.

    Returns:
        The rows, ascending.

    Example:
        >>> import numpy as np
        >>> from keras_jsigr.evaluation.parts.examples import spread
        >>> spread(np.arange(4), np.array([0, 0, 0, 1]), 2).tolist()
        [0, 3]
    """
    turn = np.zeros(len(rows), np.int64)
    for label in np.unique(labels[rows]):
        mine = labels[rows] == label
        turn[mine] = np.arange(mine.sum())
    return np.sort(rows[np.argsort(turn, kind="stable")[:count]])


def _pictures(
    task: Task, x: npt.NDArray[Any], x_adv: npt.NDArray[Any]
) -> list[dict[str, str]]:
    images, attacked = as_images(x), as_images(x_adv)
    if images is None or attacked is None:
        return [{} for _ in x]

    def maps(inputs: npt.NDArray[Any]) -> Any:
        # The log odds: the gradient of a log probability vanishes with confidence.
        return gradient_map(
            task.model,
            inputs,
            score="margin",
            layout="image",
            batch_size=task.batch_size,
        )

    columns = zip(images, attacked, maps(x), maps(x_adv), strict=True)
    return [
        {
            "image": image_picture(clean, task.input_range),
            "perturbation": difference_picture(
                adv.astype(np.float64) - clean.astype(np.float64)
            ),
            "attacked image": image_picture(adv, task.input_range),
            "gradient map": map_picture(clean_map),
            "gradient map, attacked": map_picture(adv_map),
        }
        for clean, adv, clean_map, adv_map in columns
    ]
