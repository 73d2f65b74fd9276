"""The rules, in the order of the report."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from keras_jsigr.evaluation.masking.black_box_beats_white_box import (
    black_box_beats_white_box,
)
from keras_jsigr.evaluation.masking.epsilon_curve import epsilon_curve
from keras_jsigr.evaluation.masking.local_linearity import local_linearity
from keras_jsigr.evaluation.masking.logit_scale import logit_scale
from keras_jsigr.evaluation.masking.more_steps import more_steps
from keras_jsigr.evaluation.masking.noise import noise
from keras_jsigr.evaluation.masking.randomness import randomness
from keras_jsigr.evaluation.masking.single_step_beats_iterative import (
    single_step_beats_iterative,
)
from keras_jsigr.evaluation.masking.softmax_outputs import softmax_outputs
from keras_jsigr.evaluation.masking.subject import Subject
from keras_jsigr.evaluation.masking.verdict import Verdict
from keras_jsigr.evaluation.masking.zero_gradients import zero_gradients


class Rule(NamedTuple):
    """Name a rule.

    Attributes:
        title: The defect in a few words, as the report lists it.
        judge: Looks for it.
    """

    title: str
    judge: Callable[[Subject], Verdict]


RULES = {
    "zero_gradients": Rule("Gradients vanish", zero_gradients),
    "softmax_outputs": Rule("Probabilities passed for logits", softmax_outputs),
    "randomness": Rule("Outputs are random", randomness),
    "single_step_beats_iterative": Rule(
        "One step beats many", single_step_beats_iterative
    ),
    "black_box_beats_white_box": Rule(
        "Black box beats white box", black_box_beats_white_box
    ),
    "more_steps": Rule("More steps find more", more_steps),
    "epsilon_curve": Rule("A larger radius does not help", epsilon_curve),
    "logit_scale": Rule("The scale of the logits decides", logit_scale),
    "local_linearity": Rule("Gradients turn within the radius", local_linearity),
    "noise": Rule("Noise beats gradients", noise),
}
