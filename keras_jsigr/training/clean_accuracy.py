"""The share of examples that a classifier gets right, measured as `evaluate` does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_jsigr.core.heads import Head
from keras_jsigr.core.scores import HeadKind, class_targets
from keras_jsigr.training.counted import counted
from keras_jsigr.training.scalar import read_scalar
from keras_jsigr.training.validation import Validation


def right_answers(outputs: Any, labels: Any, kind: HeadKind, head: Head) -> Any:
    """Tell per example whether the decision is the label.

    Args:
        outputs: What the model returns, `(B, C)`.
        labels: Labels of any Keras form, see `class_targets`.
        kind: `"softmax"` compares the largest output; `"sigmoid"` every output, each
            with an equal share.
        head: The head of the model: logits are positive for a yes, probabilities
            above one half.

    Returns:
        Float32 `(B,)`, 0..1.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.core.heads import Head
        >>> from keras_jsigr.training.clean_accuracy import right_answers
        >>> z = tf.constant([[1.0, 2.0], [1.0, 2.0]])
        >>> right_answers(
        ...     z, tf.constant([0, 1]), "softmax", Head("linear")
        ... ).numpy().tolist()
        [0.0, 1.0]
    """
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
    """Measure the clean accuracy of a model in a compiled pass over the data.

    Args:
        model: A built classifier; it need not be compiled and is left as it is.
        validation: The data.
        kind: Whether the classes exclude each other, see `right_answers`.
        head: The head of the model.
        ignored: Labels whose examples do not count.

    Returns:
        The accuracy, 0..1, and the number of examples that count.

    Example:
        >>> import keras, numpy as np
        >>> from keras_jsigr.core.heads import Head
        >>> from keras_jsigr.training.clean_accuracy import measure_accuracy
        >>> from keras_jsigr.training.validation import Validation
        >>> net = keras.Sequential([keras.Input((2,)), keras.layers.Softmax()])
        >>> data = Validation(np.eye(2, dtype="float32"), np.array([0, 0]))
        >>> measure_accuracy(net, data, "softmax", Head("softmax"))
        (0.5, 2.0)
    """
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
    """Read the mean of a metric and what it is the mean of.

    Args:
        right: The metric.

    Returns:
        The mean, and the number of examples.

    Example:
        >>> import keras
        >>> from keras_jsigr.training.clean_accuracy import share_and_count
        >>> metric = keras.metrics.Mean()
        >>> metric.update_state([0.0, 1.0])
        >>> share_and_count(metric)
        (0.5, 2.0)
    """
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
        self.right.update_state(right, counted(outputs, y, self._ignored))
        return {"right": self.right.result()}
