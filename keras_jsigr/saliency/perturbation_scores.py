"""How much a perturbation changed the decision, per example."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from keras_jsigr.core.scores import HeadKind


def squared_logits(logits: Any, perturbed: Any) -> tf.Tensor:
    """Compute `1/2 ||z - z'||^2`, which needs no class.

    Args:
        logits: Float `(B, C)` at the example.
        perturbed: Float `(B, C)` at the perturbed example.

    Returns:
        Float32 `(B,)`, non-negative, unbounded, without gradient.

    Reference:
        arXiv 1711.00138, equation 2.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.saliency.perturbation_scores import squared_logits
        >>> squared_logits(tf.constant([[3.0, 0.0]]), tf.zeros((1, 2))).numpy().tolist()
        [4.5]
    """
    change = tf.cast(logits, tf.float32) - tf.cast(perturbed, tf.float32)
    return tf.stop_gradient(0.5 * tf.reduce_sum(tf.square(change), axis=-1))


def probability_drop(
    logits: Any, perturbed: Any, targets: Any, kind: HeadKind = "softmax"
) -> tf.Tensor:
    """Compute `max(0, p_y(x) - p_y(x'))`.

    With independent classes (`kind="sigmoid"`, several columns) `p_y` is the mean over
    the classes of the probability of the state that the targets name.

    Args:
        logits: Float `(B, C)` at the example; one column `z` stands for `(0, z)`.
        perturbed: Float `(B, C)` at the perturbed example.
        targets: Float `(B, C)` from `class_targets` or `predicted_targets`.
        kind: `"softmax"` (exclusive classes) or `"sigmoid"` (independent ones).

    Returns:
        Float32 `(B,)` in [0, 1], without gradient.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.saliency.perturbation_scores import probability_drop
        >>> drop = probability_drop([[50.0, 0.0]], [[0.0, 0.0]], [[1.0, 0.0]])
        >>> drop.numpy().tolist()
        [0.5]
    """
    before = target_probability(logits, targets, kind)
    after = target_probability(perturbed, targets, kind)
    return tf.stop_gradient(tf.maximum(before - after, 0.0))


def target_probability(
    logits: Any, targets: Any, kind: HeadKind = "softmax"
) -> tf.Tensor:
    """Compute `p_y`, the probability of the target class.

    With independent classes (`kind="sigmoid"`, several columns) it is the mean over
    the classes of the probability of the state that the targets name.

    Args:
        logits: Float `(B, C)`; one column `z` stands for `(0, z)`.
        targets: Float `(B, C)` from `class_targets` or `predicted_targets`.
        kind: `"softmax"` (exclusive classes) or `"sigmoid"` (independent ones).

    Returns:
        Float32 `(B,)` in [0, 1].

    Example:
        >>> from keras_jsigr.saliency.perturbation_scores import target_probability
        >>> target_probability([[0.0, 0.0]], [[1.0, 0.0]]).numpy().tolist()
        [0.5]
    """
    z, t = tf.cast(logits, tf.float32), tf.cast(targets, tf.float32)
    if kind == "sigmoid" or z.shape[-1] == 1:
        per_class = t * tf.sigmoid(z) + (1.0 - t) * tf.sigmoid(-z)
        return tf.reduce_mean(per_class, axis=-1)
    return tf.reduce_sum(t * tf.nn.softmax(z), axis=-1)


def sarfa(logits: Any, perturbed: Any, targets: Any) -> tf.Tensor:
    """Compute the specific and relevant change, `S = 2 K dp / (K + dp)`, or 0.

    `dp = p_c(x) - p_c(x')` for the target class (S = 0 unless dp > 0), and
    `K = 1 / (1 + KL(P || P'))` with P the distribution over the other classes: a
    perturbation counts if it lowers the target and leaves the others' order alone.

    Args:
        logits: Float `(B, C)` at the example; one column `z` stands for `(0, z)`.
        perturbed: Float `(B, C)` at the perturbed example.
        targets: Float `(B, C)`; the largest column is the target class.

    Returns:
        Float32 `(B,)` in [0, 1], without gradient.

    Reference:
        arXiv 1912.12191, with the divergence as in the authors' code; the text beneath
        its equation 2 is said to have it the other way round, `KL(P' || P)`.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.saliency.perturbation_scores import sarfa
        >>> sarfa([[0.0, 0.0, 0.0]], [[1.0, 0.0, 0.0]], [[1.0, 0.0, 0.0]]).numpy()
        array([0.], dtype=float32)
    """
    drop = probability_drop(logits, perturbed, targets)
    z, other = tf.cast(logits, tf.float32), tf.cast(perturbed, tf.float32)
    if z.shape[-1] == 1:
        divergence = tf.zeros_like(drop)  # One other class: nothing can change in it.
    else:
        target = tf.one_hot(
            tf.argmax(targets, -1), z.shape[-1], True, False, dtype=bool
        )
        low = tf.fill(tf.shape(z), -1e30)
        p = tf.nn.log_softmax(tf.where(target, low, z))
        q = tf.nn.log_softmax(tf.where(target, low, other))
        terms = tf.where(target, tf.zeros_like(z), tf.exp(p) * (p - q))
        divergence = tf.maximum(tf.reduce_sum(terms, axis=-1), 0.0)
    same = 1.0 / (1.0 + divergence)
    return tf.stop_gradient(tf.math.divide_no_nan(2.0 * same * drop, same + drop))
