"""Change scores brought to [0, 1] one by one, without a look at the other masks."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from keras_jsigr.core.choices import ChangeName
from keras_jsigr.saliency.change_score import check_change


def bounded_score(scores: Any, score: ChangeName, scale: Any = None) -> tf.Tensor:
    """Bring change scores to [0, 1] one by one, `phi(s)`.

    `phi(s) = s / (s + scale)`, zero for `s = 0`; `phi(s) = s` without a scale, for the
    scores that lie in [0, 1] themselves.

    Args:
        scores: Float, any shape, non-negative.
        score: The name of the score.
        scale: The score that becomes 1/2, positive; broadcast to `scores`. May be
            `None` for `"probability_drop"` and `"sarfa"`.

    Returns:
        Float32, shaped like `scores`.

    Raises:
        ValueError: If the score is unknown, or needs a scale and has none.

    Example:
        >>> from keras_jsigr.saliency.bounded_score import bounded_score
        >>> bounded_score([0.0, 2.0], "squared_logits", 2.0).numpy().tolist()
        [0.0, 0.5]
    """
    check_scale(score, scale)
    scores = tf.cast(scores, tf.float32)
    if scale is None:
        return scores
    return tf.math.divide_no_nan(scores, scores + tf.cast(scale, tf.float32))


def check_scale(score: ChangeName, scale: Any) -> None:
    """Refuse an unknown score, or one that lacks the scale it needs.

    Args:
        score: The name of the score.
        scale: The scale, or `None`.

    Raises:
        ValueError: If so.

    Example:
        >>> from keras_jsigr.saliency.bounded_score import check_scale
        >>> check_scale("sarfa", None)
    """
    check_change(score)
    if score == "squared_logits" and scale is None:
        raise ValueError(
            "Got no scale for the score 'squared_logits', expected a positive scalar: "
            "a typical score. Pass a running mean of the second output, or use "
            "'probability_drop'."
        )


def mean_score(scores: Any) -> tf.Tensor:
    """Average raw scores over examples and masks; zero for an empty batch.

    Args:
        scores: Float tensor of any shape, or a list of equal ones.

    Returns:
        Float32 scalar.

    Example:
        >>> from keras_jsigr.saliency.bounded_score import mean_score
        >>> float(mean_score([[1.0, 3.0]]))
        2.0
    """
    scores = tf.cast(scores, tf.float32)
    count = tf.cast(tf.size(scores), tf.float32)
    return tf.math.divide_no_nan(tf.reduce_sum(scores), count)
