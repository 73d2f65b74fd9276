"""Which examples count, where a loss leaves those of a label out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf


def counted(outputs: Any, labels: Any, ignored: Sequence[int]) -> Any:
    """Tell per example whether its label is one to answer.

    Args:
        outputs: What the model returns, `(B, C)`.
        labels: Labels of any Keras form, see `class_targets`.
        ignored: The `ignore_class` of the losses, see `ignored_labels`.

    Returns:
        Float32 `(B,)`, 1 or 0: a weight for the metric.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.training.counted import counted
        >>> counted(tf.zeros((3, 2)), tf.constant([0, -1, 1]), [-1]).numpy().tolist()
        [1.0, 0.0, 1.0]
    """
    indices = tf.convert_to_tensor(keras.tree.flatten(labels)[0])
    keep = tf.ones_like(outputs[:, 0], tf.float32)
    for label in ignored:  # of class indices, `(B,)` or `(B, 1)`, as are the losses
        same = tf.reshape(indices, (-1,)) == tf.cast(label, indices.dtype)
        keep *= 1.0 - tf.cast(same, tf.float32)
    return keep


def loss_share(outputs: Any, labels: Any, ignored: Sequence[int]) -> Any:
    """Weigh the examples of a batch as a loss with `ignore_class` does.

    Keras averages such a loss over the examples that count: `B / valid` for them, 0 for
    the others.

    Args:
        outputs: What the model returns, `(B, C)`.
        labels: Labels of any Keras form, see `class_targets`.
        ignored: The `ignore_class` of the losses, see `ignored_labels`.

    Returns:
        Float32 `(B,)` with the mean 1, or `None` if no label is left out.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.training.counted import loss_share
        >>> loss_share(tf.zeros((3, 2)), tf.constant([0, -1, 1]), [-1]).numpy().tolist()
        [1.5, 0.0, 1.5]
    """
    if not ignored:
        return None
    keep = counted(outputs, labels, ignored)
    return tf.math.divide_no_nan(keep, tf.reduce_mean(keep))
