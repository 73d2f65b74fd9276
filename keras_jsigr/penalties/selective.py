"""Saliency imitation read literally: turn the gradient map towards the target map."""

from __future__ import annotations

import math
from typing import Any, Literal, get_args

import tensorflow as tf

from keras_jsigr.core import arguments
from keras_jsigr.penalties.jacobian import safe_sqrt


def alignment_penalty(gradients: Any, saliency: Any) -> Any:
    """Compute `1 - cos(|g|, S)` per example.

    `|g|` is the gradient's magnitude summed over channels; `S` carries no gradient.
    Where either is all zero the penalty is one, with gradient zero.

    Args:
        gradients: Float32 `(B, *map_shape)` or `(B, *map_shape, channels)`.
        saliency: Float32 `(B, *map_shape)`, non-negative.

    Returns:
        Float32 `(B,)` in 0..1.

    Reference:
        arXiv 1912.03430 (interpretation regularization by cosine).

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.penalties import alignment_penalty
        >>> g = tf.constant([[3.0, 0.0]])
        >>> alignment_penalty(g, tf.constant([[0.0, 1.0]])).numpy().tolist()
        [1.0]
    """
    magnitude = tf.abs(gradients)
    target = tf.stop_gradient(tf.convert_to_tensor(saliency))
    if magnitude.shape.rank > target.shape.rank:
        magnitude = tf.reduce_sum(magnitude, axis=-1)
    axes = list(range(1, target.shape.rank))
    product = tf.reduce_sum(magnitude * target, axes)
    norms = safe_sqrt(tf.reduce_sum(tf.square(magnitude), axes)) * safe_sqrt(
        tf.reduce_sum(tf.square(target), axes)
    )
    return 1.0 - tf.math.divide_no_nan(product, norms)


SelectionName = Literal[
    "hard", "soft", "threshold", "random", "inverted", "all", "none"
]


SELECTIONS: tuple[str, ...] = get_args(SelectionName)


# Selections that are linear in the map, so an unbiased estimate of it is enough; the
# others need the whole map, or none.
LINEAR_SELECTIONS = ("soft", "random", "all", "none")


# 0.55 of 100 entries are 55, though the product is a little more.
_ROUNDING = 1e-6


def selection_weights(
    saliency: Any,
    selection: SelectionName = "soft",
    *,
    quantile: float = 0.5,
    threshold: float | None = None,
    seed: Any = (0, 0),
) -> Any:
    """Turn a perturbation saliency map `S` into penalty weights `M`.

    - `soft`: `M = 1 - S`;
    - `hard`: 1 on the least salient `quantile` of each map, else 0;
    - `threshold`: 1 where `S` is below `threshold`; `None` means the map's mean plus
      one standard deviation;
    - `random` (control): `hard` on a random map, the same density;
    - `inverted` (control): 1 on the most salient `quantile` of each map, else 0;
    - `all`: 1 everywhere, plain input gradient regularization; `none`: 0 everywhere.

    Args:
        saliency: Float32 `(B, *map_shape)` in 0..1 (an unbiased estimate of it may
            leave the range; see `keras_jsigr.saliency.sampled_map`).
        selection: The rule.
        quantile: Share of each map, in 0..1, for `hard`, `random` and `inverted`.
        threshold: Level for `threshold`.
        seed: Int32 `(2,)` for `random`.

    Returns:
        Float32 like `saliency`, without gradient.

    Raises:
        ValueError: If `selection` is unknown.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.penalties import selection_weights
        >>> selection_weights(tf.constant([[0.0, 1.0]]), "hard").numpy().tolist()
        [[1.0, 0.0]]
    """
    arguments.choice("selection", selection, SELECTIONS)
    s = tf.stop_gradient(tf.cast(saliency, tf.float32))
    if selection == "soft":
        return 1.0 - s
    if selection == "all":
        return tf.ones_like(s)
    if selection == "none":
        return tf.zeros_like(s)
    if selection == "hard":
        return _least(s, quantile)
    if selection == "inverted":
        return _least(-s, quantile)
    if selection == "random":
        return _least(tf.random.stateless_uniform(tf.shape(s), seed), quantile)
    level: Any = threshold
    if level is None:
        axes = list(range(1, s.shape.rank))
        mean = tf.reduce_mean(s, axes, keepdims=True)
        spread = tf.reduce_mean(tf.square(s - mean), axes, keepdims=True)
        level = mean + tf.sqrt(spread)
    return tf.cast(s < level, tf.float32)


def _least(s: Any, quantile: float) -> Any:
    """Mark the entries up to the per-example quantile; ties count as below it."""
    if quantile == 0.0:
        return tf.zeros_like(s)
    size: Any = s.shape[1:].num_elements()
    if size is None:  # A model may take images of any sides, one batch after another.
        size = tf.reduce_prod(tf.shape(s)[1:])
        share = quantile * tf.cast(size, tf.float64) - _ROUNDING
        count = tf.maximum(tf.cast(tf.math.ceil(share), tf.int32), 1)
    else:
        count = max(math.ceil(quantile * size - _ROUNDING), 1)
    flat = tf.reshape(s, (tf.shape(s)[0], size))
    level = tf.sort(flat, axis=1)[:, count - 1 : count]
    return tf.reshape(tf.cast(flat <= level, tf.float32), tf.shape(s))
