"""Whether the maps agree with what occlusion says, of the model and of another one."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from keras_jsigr.core.finite_rows import finite_rows
from keras_jsigr.evaluation.interpretability.column_program import ColumnProgram
from keras_jsigr.evaluation.interpretability.figures import figure_of
from keras_jsigr.evaluation.interpretability.subject import Subject
from keras_jsigr.evaluation.saliency_records import SaliencyFigure
from keras_jsigr.saliency.mask_bank import make_mask_bank
from keras_jsigr.saliency.methods.perturbation import Perturbation
from keras_jsigr.saliency.metrics.agreement import agreement
from keras_jsigr.saliency.perturbation_map import perturbation_explainer

_MEASURES = ("rank correlation", "cosine", "overlap of the top halves")


def agreements(subject: Subject) -> list[SaliencyFigure]:
    """Compare the maps with perturbation maps of the model itself and of the teacher.

    Args:
        subject: The model and its maps.

    Returns:
        Three measures for each; none of its own for perturbation maps.
    """
    task = subject.task
    others: dict[str, Any] = {}
    if not isinstance(subject.explain.method, Perturbation):
        others["own perturbation map"] = subject.model
    if task.teacher is not None:
        others["teacher's perturbation map"] = task.teacher
    compare = ColumnProgram(
        lambda a, b: tf.stack(agreement(a, b), axis=1), task.batch_size
    )
    bank = make_mask_bank(subject.x.shape[1:], layout=subject.layout)
    figures = []
    for name, model in others.items():
        explain = perturbation_explainer(
            model, subject.x[:1], bank, batch_size=task.batch_size
        )
        theirs = np.asarray(explain(subject.x, subject.y))
        found = compare(subject.maps, theirs)
        known = subject.finite & finite_rows(theirs)
        figures += [
            figure_of(
                values,
                "Agreement",
                f"With the {name}",
                measure,
                better="higher",
                known=known,
            )
            for measure, values in zip(_MEASURES, found.T, strict=True)
        ]
    return figures
