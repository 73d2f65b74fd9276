"""The penalties of J-SIGR as free functions on tensors, per example."""

from keras_jsigr.penalties.jacobian import (
    Linearization,
    exact,
    finite_difference,
    jvp,
    projected,
)
from keras_jsigr.penalties.objective import (
    PenaltyBatch,
    batch_mean,
    directional_penalties,
    ramp_factor,
    reverse_mode_penalties,
)
from keras_jsigr.penalties.selective import alignment_penalty, selection_weights
from keras_jsigr.penalties.settings import PenaltySettings

__all__ = [
    "Linearization",
    "PenaltyBatch",
    "PenaltySettings",
    "alignment_penalty",
    "batch_mean",
    "directional_penalties",
    "exact",
    "finite_difference",
    "guided",
    "jvp",
    "projected",
    "ramp_factor",
    "reverse_mode_penalties",
    "selection_weights",
]
