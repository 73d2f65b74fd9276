"""What the maps are like: sparse, smooth, along the image, on the object."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from keras_jsigr.evaluation.interpretability.column_program import ColumnProgram
from keras_jsigr.evaluation.interpretability.figures import figure_of
from keras_jsigr.evaluation.interpretability.subject import Subject
from keras_jsigr.evaluation.saliency_records import SaliencyFigure
from keras_jsigr.saliency.gradient_map import gradient_explainer
from keras_jsigr.saliency.metrics.alignment import alignment
from keras_jsigr.saliency.metrics.gini import gini
from keras_jsigr.saliency.metrics.local_lipschitz import local_lipschitz
from keras_jsigr.saliency.metrics.pointing_game import pointing_game
from keras_jsigr.saliency.metrics.relevance_mass import relevance_mass


def sparsity(subject: Subject) -> list[SaliencyFigure]:
    """Measure on how few pixels the maps are concentrated.

    Args:
        subject: The model and its maps.

    Returns:
        The Gini index.
    """
    values = ColumnProgram(gini, subject.task.batch_size)(subject.maps)
    known = subject.finite
    return [figure_of(values, "Sparsity", "Gini index", better="higher", known=known)]


def smoothness(subject: Subject) -> list[SaliencyFigure]:
    """Measure how fast the maps change around the inputs.

    Args:
        subject: The model and its maps.

    Returns:
        The local Lipschitz constant.
    """
    task = subject.task

    def constant(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        return local_lipschitz(
            lambda x: subject.explain.core(x, y),
            x,
            radius=task.epsilon,
            samples=task.samples,
            seed=(task.seed, 1),
            input_range=task.input_range,
        )

    values = ColumnProgram(constant, task.batch_size)(subject.x, subject.y)
    name = "Local Lipschitz constant"
    known = subject.finite
    return [figure_of(values, "Stability", name, better="lower", known=known)]


def alignments(subject: Subject) -> list[SaliencyFigure]:
    """Measure how well the gradient of the logit is aligned with the image.

    Args:
        subject: The model; whatever the method of its maps.

    Returns:
        The alignment and its cosine.
    """
    size = subject.task.batch_size
    gradient = gradient_explainer(
        subject.model, subject.x[:1], score="logit", reduce=False, batch_size=size
    )
    program = ColumnProgram(lambda x, g: tf.stack(alignment(x, g), axis=1), size)
    length, cosine = program(subject.x, gradient(subject.x, subject.y)).T
    group, name = "Alignment", "Alignment of gradient and image"
    return [
        figure_of(length, group, name, "length, input units", better="higher"),
        figure_of(cosine, group, name, "cosine", better="higher"),
    ]


def localisation(subject: Subject) -> list[SaliencyFigure]:
    """Measure whether the maps lie on the objects, beside the level of chance.

    Args:
        subject: The model, its maps and boxes.

    Returns:
        Pointing game and relevance mass; nothing without boxes.
    """
    if subject.boxes is None:
        return []
    group, size = "Localisation", subject.task.batch_size
    hit, mass, area = (
        ColumnProgram(metric, size)(maps, subject.boxes)
        for metric, maps in (
            (pointing_game, subject.maps),
            (relevance_mass, subject.maps),
            (relevance_mass, np.ones_like(subject.maps)),
        )
    )
    known = subject.finite
    return [
        figure_of(hit, group, "Pointing game", better="higher", known=known),
        figure_of(mass, group, "Relevance mass", better="higher", known=known),
        figure_of(
            area, group, "Area of the boxes", "what chance gives both", known=known
        ),
    ]
