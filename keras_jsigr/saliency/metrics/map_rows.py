"""Maps of any shape as rows of numbers."""

from __future__ import annotations

import math
from typing import Any

import tensorflow as tf


def map_rows(maps: Any) -> tf.Tensor:
    """Flatten every map to one row, with a number of columns known to the graph.

    Args:
        maps: `(B, *map_shape)`, any real dtype.

    Returns:
        Float32 `(B, n)`.

    Raises:
        ValueError: If there is no axis beside the batch axis.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.saliency.metrics.map_rows import map_rows
        >>> map_rows(tf.ones((3, 4, 5))).shape.as_list()
        [3, 20]
    """
    maps = tf.cast(maps, tf.float32)
    if maps.shape.rank is None or maps.shape.rank < 2:
        raise ValueError(
            f"Got maps of shape {maps.shape}, expected (B, *map_shape) with a batch "
            "axis. Add one to a single map: `saliency[None]`."
        )
    return tf.reshape(maps, (-1, math.prod(maps.shape[1:])))


def two_map_rows(maps: Any, others: Any) -> tuple[tf.Tensor, tf.Tensor]:
    """Flatten two batches of maps that are to be compared.

    Args:
        maps: `(B, *map_shape)`.
        others: Of the same shape.

    Returns:
        Both as float32 `(B, n)`.

    Raises:
        ValueError: If their maps differ in shape.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.saliency.metrics.map_rows import two_map_rows
        >>> [rows.shape[1] for rows in two_map_rows(tf.ones((1, 2)), tf.ones((1, 2)))]
        [2, 2]
    """
    maps, others = tf.convert_to_tensor(maps), tf.convert_to_tensor(others)
    if maps.shape[1:] != others.shape[1:]:
        raise ValueError(
            f"Got maps of shapes {tuple(maps.shape)} and {tuple(others.shape)}, "
            "expected the same shape. Compare maps of the same inputs."
        )
    return map_rows(maps), map_rows(others)


def is_constant(rows: tf.Tensor) -> tf.Tensor:
    """Tell which rows hold one value only: maps that say nothing.

    Args:
        rows: Float `(B, n)`.

    Returns:
        Bool `(B,)`.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.saliency.metrics.map_rows import is_constant
        >>> is_constant(tf.constant([[0.0, 0.0], [0.0, 1.0]])).numpy().tolist()
        [True, False]
    """
    return tf.equal(tf.reduce_max(rows, axis=1), tf.reduce_min(rows, axis=1))


def unit_rows(rows: tf.Tensor) -> tf.Tensor:
    """Divide each row by its L2 norm; a row of zeros stays one.

    Args:
        rows: Float32 `(B, n)`.

    Returns:
        Float32 `(B, n)`.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.saliency.metrics.map_rows import unit_rows
        >>> unit_rows(tf.constant([[1e-30, 0.0]])).numpy().tolist()
        [[1.0, 0.0]]
    """
    # To size one first: squares of tiny gradients would be zero in float32.
    peak = tf.reduce_max(tf.abs(rows), axis=1, keepdims=True)
    rows = tf.math.divide_no_nan(rows, peak)
    return tf.math.divide_no_nan(rows, tf.norm(rows, axis=1, keepdims=True))
