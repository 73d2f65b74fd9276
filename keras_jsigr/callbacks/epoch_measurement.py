"""Measure something every few epochs and report it like a metric."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import keras

from keras_jsigr.core import settings


class EpochMeasurement(keras.callbacks.Callback):
    """Add numbers to the logs of an epoch, for the callbacks that come later.

    Keras hands one dict of logs to all callbacks in the order of the list, then to the
    history and the progress bar. Measured are the first epoch of a training and every
    `every`-th; in between the last numbers are repeated, because `EarlyStopping`,
    `ModelCheckpoint` and `CSVLogger` expect them in every epoch.

    Args:
        every: Number of epochs between measurements, >= 1.

    Raises:
        ValueError: If `every` is out of range.

    Example:
        >>> from keras_jsigr.callbacks.epoch_measurement import EpochMeasurement
        >>> class Answer(EpochMeasurement):
        ...     def measure(self, logs):
        ...         return {"answer": 42.0}
        >>> logs = {}
        >>> Answer().on_epoch_end(0, logs)
        >>> logs
        {'answer': 42.0}
    """

    def __init__(self, every: int = 1) -> None:
        super().__init__()
        self.every = settings.count("every", every)
        self._measured: dict[str, float] = {}

    @abstractmethod
    def measure(self, logs: dict[str, Any]) -> dict[str, float]:
        """Return the numbers by the names they are reported under.

        Args:
            logs: Those of the epoch so far.
        """

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Forget the numbers of an earlier training."""
        self._measured = {}

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Measure if it is time, and report."""
        logs = {} if logs is None else logs
        if not self._measured or (epoch + 1) % self.every == 0:
            self._measured = self.measure(logs)
        logs.update(self._measured)
