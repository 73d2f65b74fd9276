"""Penalty weights that find themselves: as large as the clean accuracy allows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from keras_jsigr.core import arguments
from keras_jsigr.core.heads import Head, find_head, head_kind, ignored_labels
from keras_jsigr.core.inputs import probe_batch
from keras_jsigr.core.logits import is_hardened
from keras_jsigr.core.scores import HeadKind, class_targets, valid_label_mask
from keras_jsigr.core.variables import read_scalar
from keras_jsigr.model import UNMEASURED

LOWEST, HIGHEST = 1e-3, 1e3
_RATE = math.log(2.0)
# The factor at most doubles, and at most falls to a quarter.
_DEEPEST = 2.0


class AccuracyConstraint(keras.callbacks.Callback):
    """Adapt a common factor of the penalty weights to the clean validation accuracy.

    After every epoch the factor moves so that the penalties are as large as the
    validation accuracy, by a pass over the validation data of `fit`, allows: at least
    `reference - max_drop`; the ratio of the weights stays. It moves once the warm-up is
    over, at most doubles, at most falls to a quarter, and waits while the accuracy
    recovers. Factor and reference are saved with the model, and training goes on with
    them. Added to the logs: `penalty_factor` and `accuracy_slack`, accuracy minus
    bound.

    Args:
        max_drop: Clean accuracy that may be given up, 0..1.
        reference: What it is given up from: a number in 0..1; a plain, trained model;
            `None` means what was measured in an earlier training, else the model itself
            as it is when `fit` starts, so it has to be trained.

    Raises:
        ValueError: If a number is out of range; in `fit`, if there is no validation
            data that can be read again, the model has no penalties, or the reference
            model is not trained.

    Example:
        >>> import keras, numpy as np, keras_jsigr as kj
        >>> x, y = np.random.rand(32, 4).astype("float32"), np.arange(32) % 3
        >>> net = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
        >>> robust = kj.harden(net, epsilon=0.1, verbose=0)
        >>> loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        >>> robust.compile("adam", loss)
        >>> callbacks = [kj.callbacks.AccuracyConstraint(max_drop=0.02, reference=0.9)]
        >>> given = {"validation_data": (x, y), "callbacks": callbacks, "verbose": 0}
        >>> robust.fit(x, y, **given).history["penalty_factor"]
        [1.0]
    """

    _graded: _GradedModel

    def __init__(
        self,
        max_drop: float = 0.02,
        reference: float | keras.Model | None = None,
    ) -> None:
        super().__init__()
        self.max_drop = arguments.share("max_drop", max_drop)
        if reference is not None and not isinstance(reference, keras.Model):
            reference = arguments.share("reference", reference)
        self.reference = reference
        self._validation: Validation | None = None
        self._missed = 0.0

    def read_fit_arguments(self, given: Mapping[str, Any]) -> None:
        """Find the validation data among the arguments of `fit`."""
        self._validation = validation_of(given)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Refuse a model without penalties."""
        if not is_hardened(self.model) or not self.model.penalties:
            raise ValueError(
                f"AccuracyConstraint moves the weights of penalties: got `{self.model.name}`, "
                "which has none. Train a model made by keras_jsigr.harden, with a weight above 0."
            )
        self._missed = 0.0
        # Anew: since the last training the loss may be another.
        self._graded = _GradedModel.of(self.model, self.model.head, self.model)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Set the reference once, after callbacks restored what they restore."""
        model, given = self.model, self.reference
        if isinstance(given, float):
            model.reference_accuracy.assign(given)
        if read_scalar(model.reference_accuracy) == UNMEASURED:
            model.reference_accuracy.assign(self._measured_reference())

    def _measured_reference(self) -> float:
        model = self.model
        plain, graded = model.base, self._graded
        if isinstance(self.reference, keras.Model):
            plain = self.reference
            probe = probe_batch(plain, model.input_specs, model.probe_range)
            head = find_head(plain, probe)
            graded = _GradedModel.of(plain, head, model)
        accuracy, examples = graded.measure(self._data())
        kind = head_kind(model, model.head, model.classes)
        # Independent classes are graded one by one: a coin gets half of them right.
        classes = 2 if kind == "sigmoid" else model.classes
        if not clearly_trained(accuracy, examples, classes):
            raise ValueError(
                f"`{plain.name}` is no reference: got accuracy {accuracy:.3f} on "
                f"{examples:.0f} validation examples, expected clearly more than "
                "chance. Train the plain model first and harden it then, or pass "
                "reference=: a number in 0..1, or a plain model that is trained."
            )
        if plain is model.base:
            model.accuracy_slack.assign(self.max_drop)
        return accuracy

    def _data(self) -> Validation:
        if self._validation is None:
            raise ValueError(
                "AccuracyConstraint did not see the validation data: got a training "
                "loop without `fit`. Pass it in the callbacks of `fit`."
            )
        return self._validation

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Measure the accuracy and choose the factor of the next epoch."""
        logs = {} if logs is None else logs
        logs["penalty_factor"] = read_scalar(self.model.penalty_factor)
        if not any(name.startswith("val_") for name in logs):
            return  # `validation_freq` left this epoch out
        accuracy, examples = self._graded.measure(self._data())
        error = standard_error(accuracy, examples)
        slack = self._follow(accuracy, error)
        logs["accuracy_slack"] = slack
        self._missed = -slack if -slack > error else 0.0

    def _follow(self, accuracy: float, error: float) -> float:
        """Choose the next penalty factor, and return the slack."""
        model = self.model
        slack = accuracy - (read_scalar(model.reference_accuracy) - self.max_drop)
        last = read_scalar(model.accuracy_slack)
        model.accuracy_slack.assign(slack)
        # Before the penalties are there, their price cannot be seen.
        if model.warmup_progress() == 1.0:
            model.penalty_factor.assign(
                next_factor(
                    read_scalar(model.penalty_factor),
                    slack,
                    None if last == UNMEASURED else last,
                    drop=self.max_drop,
                    error=error,
                )
            )
        return slack

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Say so if the bound was missed by more than the measurement's error."""
        if self._missed:
            arguments.tell(
                f"the validation accuracy ends {100 * self._missed:.1f} points below its bound, "
                f"with a penalty factor of {read_scalar(self.model.penalty_factor):.3g}. Train "
                "longer, or allow a larger `max_drop`.",
                self.params.get("verbose"),
            )


@dataclass(frozen=True)
class Validation:
    """The validation data of a `fit`, as `keras.Model.evaluate` takes it."""

    x: Any
    y: Any = None
    batch_size: int | None = None
    steps: int | None = None


def validation_of(arguments: Mapping[str, Any]) -> Validation:
    """Find the validation data among the arguments of `fit`."""
    data = arguments.get("validation_data")
    split = arguments.get("validation_split", 0.0)
    batch_size = arguments.get("validation_batch_size") or arguments.get("batch_size")
    if data is not None:
        x, y, _ = keras.utils.unpack_x_y_sample_weight(data)
        if hasattr(x, "__next__"):
            raise ValueError(
                "AccuracyConstraint would use up the validation data: got a "
                "generator, expected arrays or a dataset."
            )
        return Validation(x, y, batch_size, arguments.get("validation_steps"))
    if not split:
        raise ValueError(
            "AccuracyConstraint watches the clean accuracy: got no validation data, "
            "expected `fit(..., validation_data=(x, y))` or `validation_split`."
        )
    x, y = arguments["x"], arguments.get("y")
    for leaf in keras.tree.flatten((x, y)):
        if not hasattr(leaf, "shape"):
            raise ValueError(
                "validation_split cuts arrays and tensors: got "
                f"{type(leaf).__name__}. Pass validation_data= instead."
            )
    start = math.floor(len(keras.tree.flatten(x)[0]) * (1.0 - split))
    x, y = keras.tree.map_structure(lambda leaf: leaf[start:], (x, y))
    return Validation(x, y, batch_size)


def right_answers(outputs: Any, labels: Any, kind: HeadKind, head: Head) -> Any:
    """Tell per example whether the decision is the label."""
    outputs = tf.cast(outputs, tf.float32)
    targets = class_targets(keras.tree.flatten(labels)[0], outputs)
    if kind == "sigmoid" or outputs.shape[-1] == 1:
        yes = outputs > (0.0 if head.kind == "linear" else 0.5)
        same = tf.equal(yes, targets > 0.5)
        return tf.reduce_mean(tf.cast(same, tf.float32), axis=-1)
    same = tf.equal(tf.argmax(outputs, axis=-1), tf.argmax(targets, axis=-1))
    return tf.cast(same, tf.float32)


class _GradedModel(keras.Model):
    """A model of which `evaluate` counts the right answers, and nothing else."""

    def __init__(
        self, model: keras.Model, kind: HeadKind, head: Head, ignored: Sequence[int]
    ) -> None:
        # The model casts what it wants cast.
        super().__init__(name="graded", dtype=model.dtype_policy, autocast=False)
        self.model = model
        self.right = keras.metrics.Mean(name="right")
        self.built = True
        self._grade = (kind, head)
        self._ignored = tuple(ignored)

    @classmethod
    def of(cls, model: keras.Model, head: Head, hardened: Any) -> _GradedModel:
        """Grade a model by the loss that a hardened one is compiled with."""
        kind = head_kind(hardened, hardened.head, hardened.classes)
        with model.distribute_strategy.scope():
            graded = cls(model, kind, head, ignored_labels(hardened))
            graded.compile()
        return graded

    def measure(self, validation: Validation) -> tuple[float, float]:
        """Return the accuracy and the number of examples it is the mean of."""
        self.evaluate(
            validation.x,
            validation.y,
            batch_size=validation.batch_size,
            steps=validation.steps,
            verbose=0,
        )
        return float(self.right.result()), read_scalar(self.right.count)

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        return self.model(inputs, training=training)

    def test_step(self, data: Any) -> dict[str, Any]:
        x, y, _ = keras.utils.unpack_x_y_sample_weight(data)
        outputs = self(x, training=False)
        right = right_answers(outputs, y, *self._grade)
        self.right.update_state(right, valid_label_mask(outputs, y, self._ignored))
        return {"right": self.right.result()}


def next_factor(
    factor: float,
    slack: float,
    last_slack: float | None,
    *,
    drop: float,
    error: float,
) -> float:
    """Adapt the common factor of the penalty weights to the slack of the constraint."""
    if slack < 0.0 and (last_slack is None or slack - last_slack > error):
        return factor
    step = min(max(slack / (drop + error), -_DEEPEST), 1.0)
    return min(max(factor * math.exp(_RATE * step), LOWEST), HIGHEST)


def standard_error(accuracy: float, examples: float) -> float:
    """Compute the standard error of an accuracy, never zero."""
    p = (accuracy * examples + 1.0) / (examples + 2.0)
    return math.sqrt(p * (1.0 - p) / max(examples, 1.0))


def clearly_trained(accuracy: float, examples: float, classes: int) -> bool:
    """Tell whether an accuracy is that of a model which learned something."""
    chance = 1.0 / classes
    luck = 3.0 * standard_error(chance, examples)
    return accuracy - chance > max(luck, 0.2 * (1.0 - chance))
