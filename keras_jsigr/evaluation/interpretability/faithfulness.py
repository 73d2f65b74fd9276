"""Whether the pixels that a map names are those that the decision rests on."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import tensorflow as tf

from keras_jsigr.evaluation.interpretability.column_program import ColumnProgram
from keras_jsigr.evaluation.interpretability.figures import figure_of
from keras_jsigr.evaluation.interpretability.subject import Subject
from keras_jsigr.evaluation.saliency_records import Better, SaliencyFigure
from keras_jsigr.saliency.metrics.control_map import ControlName, control_map
from keras_jsigr.saliency.metrics.deletion import deletion
from keras_jsigr.saliency.metrics.insertion import insertion

GROUP = "Faithfulness"
_METRICS: tuple[tuple[str, Any, Better], ...] = (
    ("Deletion", deletion, "lower"),
    ("Insertion", insertion, "higher"),
)


def faithfulness(subject: Subject) -> list[SaliencyFigure]:
    """Measure deletion and insertion in the order of the map and of the controls.

    Args:
        subject: The model and its maps.

    Returns:
        Per metric and baseline three figures: by the map, at random, by intensity.
    """
    task, layout = subject.task, subject.layout
    low, seed = task.input_range[0], (task.seed, 0)
    orders = {"by the map": subject.maps}
    for kind in get_args(ControlName):
        control = control_map(subject.x, kind, seed=seed, low=low, layout=layout)
        orders[f"{kind} order"] = control.numpy()
    steps = min(task.steps, int(np.prod(subject.maps.shape[1:])))
    figures = []
    for name, metric, better in _METRICS:
        for baseline in task.baselines:
            settings = {"baseline": baseline, "low": low, "layout": layout}
            area = ColumnProgram(
                _area(subject, metric, steps=steps, **settings), task.batch_size
            )
            for order, maps in orders.items():
                values = area(subject.x, maps, subject.y)
                direction: Better = better if order == "by the map" else ""
                figures.append(
                    figure_of(
                        values,
                        GROUP,
                        name,
                        f"{baseline}, {order}",
                        better=direction,
                        # Of the controls too, which are compared with the map.
                        known=subject.finite,
                    )
                )
    return figures


def _area(subject: Subject, metric: Any, **settings: Any) -> Any:
    def area(x: tf.Tensor, maps: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        return metric(lambda x: subject.probability(x, y), x, maps, **settings)

    return area
