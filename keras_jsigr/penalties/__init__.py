"""The penalties of J-SIGR, and what to write others with."""

from keras_jsigr.penalties.alignment import SaliencyAlignment, alignment_penalty
from keras_jsigr.penalties.base import (
    Linearization,
    Penalty,
    PenaltyBatch,
    per_example_sum,
)
from keras_jsigr.penalties.jacobian import (
    JacobianNorm,
    exact,
    finite_difference,
    jvp,
    projected,
)
from keras_jsigr.penalties.objective import batch_mean, penalty_values, warmup_factor
from keras_jsigr.penalties.selective import (
    DirectionalNorm,
    SelectiveInputGradient,
    selection_weights,
)

__all__ = [
    "DirectionalNorm",
    "JacobianNorm",
    "Linearization",
    "Penalty",
    "PenaltyBatch",
    "SaliencyAlignment",
    "SelectiveInputGradient",
    "alignment_penalty",
    "batch_mean",
    "exact",
    "finite_difference",
    "jvp",
    "penalty_values",
    "per_example_sum",
    "projected",
    "selection_weights",
    "warmup_factor",
]
