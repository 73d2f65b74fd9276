"""The penalties of J-SIGR, and what to write others with."""

# Names that are not in `__all__` were public in version 0.1.0 and go with the next.
from keras_jsigr.penalties.alignment import SaliencyAlignment
from keras_jsigr.penalties.alignment import alignment_penalty as alignment_penalty
from keras_jsigr.penalties.base import (
    Linearization,
    Penalty,
    PenaltyBatch,
    per_example_sum,
)
from keras_jsigr.penalties.jacobian import JacobianNorm
from keras_jsigr.penalties.jacobian import exact as exact
from keras_jsigr.penalties.jacobian import finite_difference as finite_difference
from keras_jsigr.penalties.jacobian import jvp as jvp
from keras_jsigr.penalties.jacobian import projected as projected
from keras_jsigr.penalties.objective import batch_mean as batch_mean
from keras_jsigr.penalties.objective import penalty_values as penalty_values
from keras_jsigr.penalties.objective import warmup_factor as warmup_factor
from keras_jsigr.penalties.selective import DirectionalNorm as DirectionalNorm
from keras_jsigr.penalties.selective import LinearizedLoss, SelectiveInputGradient
from keras_jsigr.penalties.selective import selection_weights as selection_weights

__all__ = [
    "JacobianNorm",
    "Linearization",
    "LinearizedLoss",
    "Penalty",
    "PenaltyBatch",
    "SaliencyAlignment",
    "SelectiveInputGradient",
    "per_example_sum",
]
