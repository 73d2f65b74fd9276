"""Noise that neighbouring entries share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from keras_jsigr.attacks.search.seeds import ALGORITHM, fold_in

# Patterns take the streams 0, 1, ... of the seed, their places those from here on.
_PLACES = 1000


def patch_noise(x: Any, seed: Any, sides: Sequence[int] = (1,)) -> Any:
    """Draw noise in -1..1 that is constant on square patches.

    `n = clip(n_1 + n_2 + ..., -1, 1)`, one pattern per side. A pattern lays a grid of
    patches over the example at a random place and draws one number per patch and
    channel, uniform on -1..1. Independent entries (side 1) all but cancel in the sums
    of a network's first layers; patches do not, and lead farther away from the example
    within the same maximum norm.

    Args:
        x: Float tensor `(B, *S)`; only the shape is used. Patches span the axes between
            the first and the last: height and width of images, the steps of sequences;
            features have no neighbours.
        seed: Int32 `(2,)`. The place of a grid is the same for the whole batch, the
            numbers are not.
        sides: Length of a patch along each axis for every pattern, in pixels or steps,
            >= 1.

    Returns:
        Float32 like `x`.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.training.patch_noise import patch_noise
        >>> noise = patch_noise(tf.zeros((1, 8, 8, 1)), [0, 1], sides=(8,))
        >>> len(set(noise.numpy().ravel().tolist())) <= 4
        True
    """
    patterns = [
        # The first is what a ball draws: side 1 alone is its uniform sample.
        _pattern(x, fold_in(seed, number) if number else seed, side, _PLACES + number)
        for number, side in enumerate(sides)
    ]
    return tf.clip_by_value(tf.add_n(patterns), -1.0, 1.0)


def _pattern(x: Any, seed: Any, side: int, place: int) -> Any:
    """Draw one number per patch, and with the stream `place` where the grid begins."""
    shape = tf.shape(x)
    axes = range(1, x.shape.rank - 1) if side > 1 else ()
    # As many patches as cover the example wherever the grid begins.
    cells = [(shape[axis] + 2 * side - 2) // side for axis in axes]
    drawn = tf.concat([shape[:1], cells, shape[-1:]], 0) if axes else shape
    noise = tf.random.stateless_uniform(drawn, seed, -1.0, 1.0, alg=ALGORITHM)
    if not axes:
        return tf.ensure_shape(noise, x.shape)
    for axis in axes:
        noise = tf.repeat(noise, side, axis)
    first = tf.random.stateless_uniform(
        (len(axes),), fold_in(seed, place), 0, side, tf.int32, alg=ALGORITHM
    )
    begin = tf.concat([[0], first, [0]], 0)
    return tf.ensure_shape(tf.slice(noise, begin, shape), x.shape)
