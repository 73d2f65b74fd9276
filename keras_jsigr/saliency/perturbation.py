"""Perturbation saliency: what does the decision lose where the input is occluded?"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from keras_jsigr.core.as_float import as_float
from keras_jsigr.core.choices import BaselineName, ChangeName
from keras_jsigr.core.logits import LogitsFn
from keras_jsigr.core.map_each import map_each
from keras_jsigr.core.scores import HeadKind
from keras_jsigr.saliency.baselines import baseline as compute_baseline
from keras_jsigr.saliency.baselines import check_baseline
from keras_jsigr.saliency.change_score import change_score, check_change
from keras_jsigr.saliency.interpolate import expand_map
from keras_jsigr.saliency.mask_bank import MaskBank

# So many last digits logits may be off, after all the layers of a network, and
# probabilities.
_LOGITS_OFF, _PROBABILITIES_OFF = 32.0, 8.0


def perturbation_coefficients(
    logits_fn: LogitsFn,
    x: Any,
    targets: Any,
    bank: MaskBank,
    *,
    baseline: BaselineName = "blur",
    score: ChangeName = "squared_logits",
    kind: HeadKind = "softmax",
) -> tf.Tensor:
    """Score every mask of the bank on every example.

    `x_k = x (1 - m_k) + A(x) m_k` and `S_k = score(f(x), f(x_k))`: K + 1 forward passes
    in a loop that keeps nothing for a gradient.

    Args:
        logits_fn: Maps inputs to logits `(B, C)` in inference mode.
        x: Data `(B, *S)` of the bank's input shape.
        targets: Float `(B, C)`, a function that makes them from the logits (it saves
            a forward pass), or `None` for a score that needs no class.
        bank: The K masks.
        baseline: `"blur"`, `"mean"` or `"zero"`, see `baseline`.
        score: `"squared_logits"`, `"probability_drop"` or `"sarfa"`.
        kind: `"softmax"` (exclusive classes) or `"sigmoid"` (independent ones).

    Returns:
        Float32 `(B, K)`, non-negative, without gradient; zero for an example whose
        scores are all within the rounding errors of float32.

    Raises:
        ValueError: If a name is unknown or `x` does not fit the bank.

    Reference:
        arXiv 1711.00138, equations 1 and 2.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.saliency.mask_bank import make_mask_bank
        >>> from keras_jsigr.saliency.perturbation import perturbation_coefficients
        >>> perturbation_coefficients(
        ...     lambda x: x * [2.0, 0.0],
        ...     tf.ones((1, 2)),
        ...     None,
        ...     make_mask_bank((2,)),
        ...     baseline="zero",
        ... ).numpy().tolist()
        [[2.0, 0.0]]
    """
    check_baseline(baseline)
    check_change(score)
    x = as_perturbable(x, bank)
    away = compute_baseline(x, baseline, layout=bank.layout) - x
    logits = tf.stop_gradient(logits_fn(x))
    chosen = targets(logits) if callable(targets) else targets

    def score_of(mask: tf.Tensor) -> tf.Tensor:
        step = expand_map(tf.cast(mask, x.dtype)[tf.newaxis], x) * away
        return change_score(logits, logits_fn(x + step), chosen, score, kind)

    scores = map_each(score_of, tf.constant(bank.masks), (None,))
    coefficients = _above_rounding(tf.transpose(scores), logits, score)
    return tf.ensure_shape(coefficients, (x.shape[0], bank.size))


def _above_rounding(scores: tf.Tensor, logits: tf.Tensor, score: str) -> tf.Tensor:
    """Set the scores of an example to zero if all of them are rounding errors.

    The blur of a constant image differs from it in the last digits: a map that is
    divided by its maximum would show these.
    """
    digit = float(np.finfo(np.float32).eps)
    room: Any = _PROBABILITIES_OFF * digit
    if score == "squared_logits":
        z = tf.cast(logits, tf.float32)
        size = tf.reduce_sum(z**2, axis=-1, keepdims=True)
        room = 0.5 * (_LOGITS_OFF * digit) ** 2 * size
    rounding = tf.reduce_max(scores, axis=-1, keepdims=True) <= room
    return tf.stop_gradient(tf.where(rounding, 0.0, scores))


def as_perturbable(x: Any, bank: MaskBank) -> tf.Tensor:
    """Return the data as a float tensor without gradient that fits the bank.

    Args:
        x: Data `(B, *S)`; integers become float32.
        bank: The masks it is to be occluded with.

    Returns:
        Float tensor `(B, *S)`.

    Raises:
        ValueError: If the examples do not have the bank's input shape.

    Example:
        >>> import numpy as np
        >>> from keras_jsigr.saliency.mask_bank import make_mask_bank
        >>> from keras_jsigr.saliency.perturbation import as_perturbable
        >>> as_perturbable(np.zeros((1, 2), "uint8"), make_mask_bank((2,))).dtype.name
        'float32'
    """
    x = as_float(x)
    if tuple(x.shape[1:]) != bank.input_shape:
        raise ValueError(
            f"Got data of shape {tuple(x.shape)}, expected (B, "
            f"{', '.join(map(str, bank.input_shape))}). "
            "Make the mask bank for the shape of this data."
        )
    return tf.stop_gradient(x)


def normalize_coefficients(coefficients: Any) -> tf.Tensor:
    """Divide the coefficients of every example by their maximum.

    Args:
        coefficients: Float `(B, K)`, non-negative.

    Returns:
        Float32 `(B, K)` in [0, 1]; an all-zero row stays all-zero.

    Example:
        >>> from keras_jsigr.saliency.perturbation import normalize_coefficients
        >>> normalize_coefficients([[1.0, 4.0], [0.0, 0.0]]).numpy().tolist()
        [[0.25, 1.0], [0.0, 0.0]]
    """
    c = tf.cast(coefficients, tf.float32)
    return tf.math.divide_no_nan(c, tf.reduce_max(c, axis=-1, keepdims=True))
