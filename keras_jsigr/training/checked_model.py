"""A Keras model that looks at its loss and its data before it trains."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import keras

from keras_jsigr.checks.compile_check import check_loss
from keras_jsigr.checks.data_check import check_training_data
from keras_jsigr.core.head_kind import head_kind
from keras_jsigr.core.heads import Head
from keras_jsigr.core.ignored_labels import ignored_labels
from keras_jsigr.penalties import PenaltySettings


class CheckedModel(keras.Model):
    """A classifier whose `fit` refuses what would train something else than meant.

    Attributes:
        base: The wrapped model.
        settings: The objective, with the declared input range.
        classes: Number of outputs.
    """

    base: keras.Model
    settings: PenaltySettings
    classes: int

    @property
    @abstractmethod
    def head(self) -> Head:
        """The softmax, sigmoid or linear head."""

    @property
    @abstractmethod
    def input_specs(self) -> Any:
        """The structure of the inputs, a `tf.TensorSpec` at every leaf."""

    @property
    @abstractmethod
    def regularized(self) -> list[int]:
        """Positions of the regularized inputs among the flattened inputs."""

    @property
    @abstractmethod
    def padding(self) -> tuple[tuple[float, ...], ...]:
        """For each regularized input what is padding in it."""

    @abstractmethod
    def check_samples(self, x: Any) -> None:
        """Refuse inputs the model cannot train on for reasons of its own."""

    def make_train_function(self, force: bool = False) -> Any:
        """Check the compiled loss against the head, then do as Keras does."""
        check_loss(self, self.head)
        return super().make_train_function(force)

    def fit(self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Look at the training data, then train as `keras.Model.fit` does.

        Args:
            x: As in `keras.Model.fit`.
            y: As in `keras.Model.fit`.
            *args: As in `keras.Model.fit`.
            **kwargs: As in `keras.Model.fit`.

        Returns:
            The `keras.callbacks.History`.

        Raises:
            ValueError: If the loss does not fit the head, if labels, shapes or values
                do not fit the model and its declared `input_range`, or if cached maps
                know none of the samples.
        """
        # An uncompiled model is left to Keras' own message.
        if getattr(self, "optimizer", None) is not None:
            check_loss(self, self.head)
            seen = check_training_data(
                x,
                y,
                specs=self.input_specs,
                regularized=self.regularized,
                classes=self.classes,
                input_range=self.settings.input_range,
                ignored=ignored_labels(self),
                padding=self.padding,
                exclusive=self.head.kind == "linear"
                and head_kind(self, self.head, self.classes) == "softmax",
            )
            if seen is not None:
                self.check_samples(seen)
        return super().fit(x, y, *args, **kwargs)
