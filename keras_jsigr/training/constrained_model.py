"""A model whose penalty weights are as large as its clean accuracy allows."""

from __future__ import annotations

import inspect
import math
from dataclasses import dataclass
from typing import Any

import keras

from keras_jsigr.core.head_kind import head_kind
from keras_jsigr.core.heads import Head, find_head
from keras_jsigr.core.ignored_labels import ignored_labels
from keras_jsigr.core.inputs import probe_batch, probe_size
from keras_jsigr.training.accuracy_constraint import AccuracyConstraint
from keras_jsigr.training.checked_model import CheckedModel
from keras_jsigr.training.clean_accuracy import measure_accuracy, right_answers
from keras_jsigr.training.counted import counted
from keras_jsigr.training.penalty_rule import (
    clearly_trained,
    next_factor,
    standard_error,
)
from keras_jsigr.training.scalar import add_scalar, read_scalar
from keras_jsigr.training.validation import Validation, validation_of

_HOW = (
    "Train the plain model first and harden it then, or pass reference_accuracy= to "
    "`harden`: a number in 0..1, or a plain model that is trained."
)


@dataclass(frozen=True)
class _Twin:
    """The plain model whose accuracy counts. Not a layer, so Keras does not save it."""

    model: keras.Model
    head: Head


class ConstrainedModel(CheckedModel):
    """A classifier that adapts a common factor of its penalty weights in `fit`.

    With `penalty_weights="auto"` in the settings. The factor, the reference and the
    last slack are variables: a saved model goes on where it stopped.

    Attributes:
        penalty_factor: Scalar variable, or `None` with fixed weights.
        reference_accuracy: Scalar variable, NaN until it is measured.
        accuracy_slack: Scalar variable: the last validation accuracy minus the bound.
        clean_accuracy: Running share of right answers; Keras resets it every epoch.
    """

    penalty_factor: Any = None

    def make_constraint(self, reference: keras.Model | None) -> None:
        """Create the state, if the settings ask for it.

        Args:
            reference: A plain model to measure the reference on; `None` takes the
                settings' number, or the base as it is when `fit` starts.

        Raises:
            ValueError: If the reference is no classifier for the same inputs.
        """
        self._twin = None
        if self.settings.penalty_weights == "fixed":
            return
        if reference is not None:
            probe = probe_batch(
                self.input_specs, self.settings.input_range, probe_size(reference)
            )
            self._twin = _Twin(reference, find_head(reference, probe))
        known = self.settings.reference_accuracy
        self.penalty_factor = add_scalar(self, "penalty_factor", 1.0)
        self.reference_accuracy = add_scalar(
            self, "reference_accuracy", math.nan if known is None else known
        )
        self.accuracy_slack = add_scalar(self, "accuracy_slack", math.nan)
        self.clean_accuracy = keras.metrics.Mean(name="clean_accuracy")

    def factor(self) -> Any:
        """Return the factor of all penalty weights, 1 with fixed weights."""
        return 1.0 if self.penalty_factor is None else self.penalty_factor.value

    def constraint_state(self) -> dict[str, float | None]:
        """Return what the constraint chose; empty with fixed weights."""
        if self.penalty_factor is None:
            return {}
        names = ("penalty_factor", "reference_accuracy")
        values = {name: read_scalar(getattr(self, name)) for name in names}
        return {n: None if math.isnan(v) else float(v) for n, v in values.items()}

    def fit(self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Train as `keras.Model.fit` does, with the constraint watched if there is one.

        Args:
            x: As in `keras.Model.fit`.
            y: As in `keras.Model.fit`.
            *args: As in `keras.Model.fit`.
            **kwargs: As in `keras.Model.fit`.

        Returns:
            The `keras.callbacks.History`; with the constraint it holds
            `penalty_factor` and `accuracy_slack`.

        Raises:
            ValueError: If there is no validation data to watch, or no reference.
        """
        if self.penalty_factor is None:
            return super().fit(x, y, *args, **kwargs)
        bound = inspect.signature(keras.Model.fit).bind(self, x, y, *args, **kwargs)
        given = {k: v for k, v in bound.arguments.items() if k != "self"}
        callbacks = given.pop("callbacks", None)
        if isinstance(callbacks, keras.callbacks.CallbackList):
            raise TypeError(
                "penalty_weights='auto' adds a callback of its own: got a "
                "CallbackList, expected a list of callbacks."
            )
        watch = AccuracyConstraint(validation_of(given))
        return super().fit(
            **given, callbacks=[watch, *keras.tree.flatten(callbacks or [])]
        )

    def compute_metrics(
        self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None
    ) -> dict[str, Any]:
        """Count the right answers, then do as Keras does."""
        if self.penalty_factor is not None:
            right = right_answers(y_pred, y, self._kind, self.head)
            weights = counted(y_pred, y, ignored_labels(self))
            self.clean_accuracy.update_state(right, weights)
        results: dict[str, Any] = super().compute_metrics(x, y, y_pred, sample_weight)
        return results

    def get_metrics_result(self) -> dict[str, Any]:
        """Return the user's metrics: the count of right answers is our own."""
        results: dict[str, Any] = super().get_metrics_result()
        results.pop("clean_accuracy", None)
        return results

    def measure_reference(self, validation: Validation) -> None:
        """Measure the reference accuracy unless it is known.

        Args:
            validation: The data.

        Raises:
            ValueError: If the model to measure is not clearly better than chance, or
                if measuring would use the data up.
        """
        if not math.isnan(read_scalar(self.reference_accuracy)):
            return
        if hasattr(validation.x, "__next__"):
            raise ValueError(
                "Measuring the reference would use up the validation data: got a "
                "generator. Pass arrays or a dataset, or reference_accuracy=<number>."
            )
        twin = self._twin or _Twin(self.base, self.head)
        accuracy, examples = measure_accuracy(
            twin.model, validation, self._kind, twin.head, ignored_labels(self)
        )
        # Independent classes are graded one by one: a coin gets half of them right.
        classes = 2 if self._kind == "sigmoid" else self.classes
        if not clearly_trained(accuracy, examples, classes):
            raise ValueError(
                f"`{twin.model.name}` is no reference: got accuracy {accuracy:.3f} on "
                f"{examples:.0f} validation examples, expected clearly more than "
                f"chance. {_HOW}"
            )
        self.reference_accuracy.assign(accuracy)
        if self._twin is None:
            self.accuracy_slack.assign(self.settings.accuracy_drop)

    def follow_accuracy(self, accuracy: float, examples: float) -> float:
        """Choose the next penalty factor from the accuracy of a validation.

        Args:
            accuracy: Share of right answers, 0..1.
            examples: Number of validation examples.

        Returns:
            The slack: accuracy minus the bound.
        """
        drop = self.settings.accuracy_drop
        slack = accuracy - (read_scalar(self.reference_accuracy) - drop)
        last = read_scalar(self.accuracy_slack)
        self.accuracy_slack.assign(slack)
        # Before the penalties are there, their price cannot be seen.
        full = read_scalar(self.delay_steps) + read_scalar(self.ramp_steps)
        if read_scalar(self.optimizer.iterations) >= full:
            self.penalty_factor.assign(
                next_factor(
                    read_scalar(self.penalty_factor),
                    slack,
                    None if math.isnan(last) else last,
                    drop=drop,
                    error=standard_error(accuracy, examples),
                )
            )
        return slack

    def check_savable(self) -> None:
        """Refuse to write a model whose reference would be lost."""
        if self._twin is not None and math.isnan(read_scalar(self.reference_accuracy)):
            raise ValueError(
                "The reference model is not saved, and its accuracy is not measured "
                "yet: got a model that was never fitted. Call `fit` first, or pass "
                "reference_accuracy=<number> to `harden`."
            )

    @property
    def _kind(self) -> Any:
        return head_kind(self, self.head, self.classes)
