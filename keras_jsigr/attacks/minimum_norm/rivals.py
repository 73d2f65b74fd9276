"""Which classes an input could be taken for instead of its own."""

from __future__ import annotations

import tensorflow as tf

from keras_jsigr.core.logits import as_classes


def rival_classes(logits: tf.Tensor, targets: tf.Tensor, count: int) -> tf.Tensor:
    """Return the other classes with the largest logits, the largest first.

    Args:
        logits: Float `(B, C)`; `C = 1` means one sigmoid unit.
        targets: Float `(B, C)`.
        count: How many; all if there are fewer.

    Returns:
        Int32 `(B, K)` with `K = min(count, C - 1)`; one for a sigmoid unit, which
        decides between the classes 0 and 1.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.attacks.minimum_norm.rivals import rival_classes
        >>> z, targets = tf.constant([[3.0, 1.0, 2.0]]), tf.constant([[1.0, 0.0, 0.0]])
        >>> rival_classes(z, targets, 2).numpy().tolist()
        [[2, 1]]
    """
    logits = as_classes(logits)
    classes = logits.shape[-1]
    label = tf.one_hot(label_of(targets), classes, on_value=True, off_value=False)
    # Below every logit, so that the label itself comes last and is cut off.
    others = tf.where(label, tf.fill(tf.shape(logits), float("-inf")), logits)
    return tf.math.top_k(others, min(count, classes - 1)).indices


def label_of(targets: tf.Tensor) -> tf.Tensor:
    """Return the class of target rows `(B, C)`, int32 `(B,)`.

    Args:
        targets: Float `(B, C)`; `C = 1` means one sigmoid unit.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.attacks.minimum_norm.rivals import label_of
        >>> label_of(tf.constant([[0.0, 1.0]])).numpy().tolist()
        [1]
    """
    if targets.shape[-1] == 1:
        return tf.cast(targets[:, 0] > 0.5, tf.int32)
    return tf.argmax(targets, axis=-1, output_type=tf.int32)
