"""Whether the maps depend on what the model learned."""

from __future__ import annotations

import keras

from keras_jsigr.evaluation.interpretability.figures import figure_of
from keras_jsigr.evaluation.interpretability.subject import Subject
from keras_jsigr.evaluation.saliency_records import SaliencyFigure
from keras_jsigr.saliency.metrics.randomization import randomization

GROUP, METRIC, ALL = "Sanity", "Same map with shuffled weights", "all layers"


def sanity(subject: Subject) -> list[SaliencyFigure]:
    """Shuffle the weights layer by layer and compare the maps.

    Args:
        subject: The model and its maps.

    Returns:
        Rank correlations, from the output layer alone to all layers; nothing for a
        callable, whose weights cannot be shuffled.
    """
    if not isinstance(subject.model, keras.Model):
        return []
    found = randomization(
        subject.explain, subject.model, subject.x, subject.y, seed=subject.task.seed
    )
    names = [f"down to {name}" for name in found]
    names[-1] = ALL
    return [
        figure_of(values, GROUP, METRIC, name, better="lower", known=subject.finite)
        for name, values in zip(names, found.values(), strict=True)
    ]
