"""Follow the clean accuracy while training, and move the penalty factor after it."""

from __future__ import annotations

from typing import Any

import keras

from keras_jsigr.training.clean_accuracy import share_and_count
from keras_jsigr.training.penalty_rule import standard_error
from keras_jsigr.training.scalar import read_scalar
from keras_jsigr.training.validation import Validation


class AccuracyConstraint(keras.callbacks.Callback):
    """Keep the validation accuracy of a hardened model above its bound.

    `fit` adds it by itself to a model with `penalty_weights="auto"`, before all other
    callbacks: what they log and save is the state after the update. It reads the
    accuracy of the validation that `fit` runs anyway.

    Args:
        validation: The validation data, to measure the reference on.
    """

    def __init__(self, validation: Validation) -> None:
        super().__init__()
        self._validation = validation
        self._measured: tuple[float, float] | None = None
        self._missed = 0.0

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Measure the reference once, after callbacks restored what they restore."""
        self.model.measure_reference(self._validation)

    def on_test_end(self, logs: dict[str, Any] | None = None) -> None:
        """Read the accuracy of the validation of this epoch."""
        self._measured = share_and_count(self.model.clean_accuracy)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Log the factor of this epoch and choose that of the next."""
        logs = {} if logs is None else logs
        logs["penalty_factor"] = read_scalar(self.model.penalty_factor)
        if self._measured is None:
            return  # `validation_freq` left this epoch out
        slack = logs["accuracy_slack"] = self.model.follow_accuracy(*self._measured)
        self._missed = -slack if -slack > standard_error(*self._measured) else 0.0
        self._measured = None

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Say so if the bound was missed by more than its measurement is unsure."""
        if self._missed and self.params.get("verbose"):
            print(
                f"keras_jsigr: the validation accuracy ends {100 * self._missed:.1f} "
                "points below its bound, with a penalty factor of "
                f"{read_scalar(self.model.penalty_factor):.3g}. Train longer, or allow "
                "a larger `accuracy_drop`."
            )
