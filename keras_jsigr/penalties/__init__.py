"""The penalties of J-SIGR as free functions on tensors, per example."""

from keras_jsigr.penalties import guided
from keras_jsigr.penalties.alignment import alignment_penalty
from keras_jsigr.penalties.batch_mean import batch_mean
from keras_jsigr.penalties.directional import finite_difference, jvp
from keras_jsigr.penalties.jacobian import exact, projected
from keras_jsigr.penalties.linearization import Linearization
from keras_jsigr.penalties.objective import (
    PenaltyBatch,
    directional_penalties,
    reverse_mode_penalties,
)
from keras_jsigr.penalties.schedule import ramp_factor
from keras_jsigr.penalties.selection import selection_weights
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
