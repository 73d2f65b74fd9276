"""Follow the clean accuracy while training, and move the penalty factor after it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from keras_jsigr.core.heads import Head
from keras_jsigr.core.scores import HeadKind, class_targets, valid_label_mask
from keras_jsigr.core.variables import read_scalar


@dataclass(frozen=True)
class Validation:
    """The validation data of a `fit`, as `keras.Model.evaluate` takes it."""

    x: Any
    y: Any = None
    batch_size: int | None = None
    steps: int | None = None


def validation_of(arguments: dict[str, Any]) -> Validation:
    """Find the validation data among the arguments of `fit`."""
    data = arguments.get("validation_data")
    split = arguments.get("validation_split", 0.0)
    batch_size = arguments.get("validation_batch_size") or arguments.get("batch_size")
    if data is not None:
        x, y, _ = keras.utils.unpack_x_y_sample_weight(data)
        return Validation(x, y, batch_size, arguments.get("validation_steps"))
    if not split:
        raise ValueError(
            "penalty_weights='auto' watches the clean accuracy: got no validation "
            "data, expected `fit(..., validation_data=(x, y))` or `validation_split`."
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


def measure_accuracy(
    model: keras.Model,
    validation: Validation,
    kind: HeadKind,
    head: Head,
    ignored: Sequence[int] = (),
) -> tuple[float, float]:
    """Measure the clean accuracy of a model in a compiled pass over the data."""
    with model.distribute_strategy.scope():
        graded = _GradedModel(model, kind, head, ignored)
        graded.compile()
    graded.evaluate(
        validation.x,
        validation.y,
        batch_size=validation.batch_size,
        steps=validation.steps,
        verbose=0,
    )
    return share_and_count(graded.right)


def share_and_count(right: keras.metrics.Mean) -> tuple[float, float]:
    """Read the mean of a metric and what it is the mean of."""
    return float(right.result()), read_scalar(right.count)


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

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        return self.model(inputs, training=training)

    def test_step(self, data: Any) -> dict[str, Any]:
        x, y, _ = keras.utils.unpack_x_y_sample_weight(data)
        outputs = self(x, training=False)
        right = right_answers(outputs, y, *self._grade)
        self.right.update_state(right, valid_label_mask(outputs, y, self._ignored))
        return {"right": self.right.result()}


LOWEST, HIGHEST = 1e-3, 1e3


_RATE = math.log(2.0)


_DEEPEST = 2.0  # the factor at most doubles, and at most falls to a quarter


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


class AccuracyConstraint(keras.callbacks.Callback):
    """Keep the validation accuracy of a hardened model above its bound."""

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
