"""Gradient maps inside an attack, and the share of one that lies on given pixels."""

from __future__ import annotations

import tensorflow as tf

from keras_jsigr.attacks.search.problem import Problem
from keras_jsigr.core.logits import LogitsFn
from keras_jsigr.core.scores import class_score


def odds_gradient(
    logits_fn: LogitsFn, x: tf.Tensor, problem: Problem
) -> tuple[tf.Tensor, tf.Tensor]:
    """Compute the gradient of the log odds of a class, and the logits.

    It is parallel to the gradient of the log probability, and never vanishes.

    Args:
        logits_fn: Maps inputs to logits `(B, C)`.
        x: Float `(B, *S)` in the working dtype, a point of the search.
        problem: The batch, whose targets are the classes explained.

    Returns:
        The tuple of the gradient, like `x`, and logits, float32 `(B, C)`.

    Raises:
        ValueError: If the logits do not depend on `x`.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.attacks.explanations.map_mass import odds_gradient
        >>> from keras_jsigr.attacks.search.problem import Problem
        >>> problem = Problem(tf.zeros((1, 2)), tf.constant([[0.0, 1.0]]))
        >>> odds_gradient(lambda x: 3.0 * x, tf.zeros((1, 2)), problem)[0].numpy()
        array([[-3.,  3.]], dtype=float32)
    """
    # The whole map counts, also where the input must not change: watch what is seen.
    point = tf.cast(problem.see(x), x.dtype)
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(point)
        logits = tf.cast(logits_fn(tf.cast(point, problem.x.dtype)), tf.float32)
        odds = class_score(logits, problem.targets, "margin")
    gradient = tape.gradient(odds, point)
    if gradient is None:
        raise ValueError(
            "The model's outputs do not depend on its input by TensorFlow operations: "
            "got no gradient, expected one. Attack a surrogate."
        )
    return gradient, logits


def flat_map(gradient: tf.Tensor) -> tf.Tensor:
    """Compute the map `sum_channels |gradient|`, as one row per example.

    Args:
        gradient: Float `(B, *S)`; the last of two axes or more in `S` is the channels.

    Returns:
        Float `(B, pixels)`.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.attacks.explanations.map_mass import flat_map
        >>> flat_map(tf.constant([[[1.0, -2.0], [0.0, 4.0]]])).numpy().tolist()
        [[3.0, 4.0]]
    """
    size = tf.abs(gradient)
    if size.shape.rank > 2:
        size = tf.reduce_sum(size, axis=-1)
    pixels = 1
    for length in size.shape[1:]:
        pixels *= length
    return tf.reshape(size, (-1, pixels))


def mass_share(maps: tf.Tensor, pixels: tf.Tensor) -> tf.Tensor:
    """Compute the share of the sum of each map that lies on its pixels.

    Args:
        maps: Float `(B, n)`, >= 0, of any scale.
        pixels: Bool `(B, n)`.

    Returns:
        Float `(B,)`, 0 to 1; 1 for a map of zeros.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.attacks.explanations.map_mass import mass_share
        >>> maps, pixels = tf.constant([[1.0, 3.0]]), tf.constant([[True, False]])
        >>> mass_share(maps, pixels).numpy().tolist()
        [0.25]
    """
    # To size one first: products of tiny sums would vanish in the derivative.
    size = tf.stop_gradient(tf.reduce_max(maps, axis=1, keepdims=True))
    maps /= tf.where(size > 0, size, tf.ones_like(size))
    total = tf.reduce_sum(maps, axis=1)
    inside = tf.reduce_sum(tf.where(pixels, maps, tf.zeros_like(maps)), axis=1)
    some = total > 0
    return tf.where(some, inside / tf.where(some, total, tf.ones_like(total)), 1.0)
