"""From K numbers per example to a map, and from a map to the shape of the data."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from keras_jsigr.saliency.mask_bank import MaskBank


def interpolate(bank: MaskBank, coefficients: Any) -> tf.Tensor:
    """Turn coefficients on the cells into maps, `sum_k c_k hat_k`.

    The hats are a partition of unity, so a map lies within the range of its
    coefficients, and equal coefficients give a flat map.

    Args:
        bank: The masks and hats.
        coefficients: Float `(B, K)`.

    Returns:
        Float32 `(B, *map_shape)`.

    Raises:
        ValueError: If there are not K coefficients per example.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.saliency.interpolate import interpolate
        >>> from keras_jsigr.saliency.mask_bank import make_mask_bank
        >>> interpolate(make_mask_bank((2,)), tf.constant([[0.5, 1.0]])).numpy()
        array([[0.5, 1. ]], dtype=float32)
    """
    coefficients = tf.cast(coefficients, tf.float32)
    if coefficients.shape.rank != 2 or coefficients.shape[-1] != bank.size:
        raise ValueError(
            f"Got coefficients of shape {tuple(coefficients.shape)}, expected "
            f"(B, {bank.size}). Use the bank that they were computed with."
        )
    hats = tf.constant(bank.hats.reshape(bank.size, -1))
    return tf.reshape(tf.matmul(coefficients, hats), (-1, *bank.map_shape))


def expand_map(saliency: Any, x: Any) -> tf.Tensor:
    """Give a map the channel axis it needs to be multiplied with the data.

    Args:
        saliency: Float `(B, *map_shape)`.
        x: The data `(B, *map_shape)` or `(B, *map_shape, C)`.

    Returns:
        `saliency`, with a last axis of length one where `x` has one axis more.

    Raises:
        ValueError: If `x` has neither as many axes nor one more.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.saliency.interpolate import expand_map
        >>> expand_map(tf.ones((1, 4, 4)), tf.ones((1, 4, 4, 3))).shape.as_list()
        [1, 4, 4, 1]
    """
    saliency, x = tf.convert_to_tensor(saliency), tf.convert_to_tensor(x)
    missing = x.shape.rank - saliency.shape.rank
    if missing not in (0, 1):
        raise ValueError(
            f"Got a map of shape {tuple(saliency.shape)} for data of shape "
            f"{tuple(x.shape)}, expected the same axes or one channel axis more in the "
            "data. Make the bank with the layout of the data."
        )
    return saliency[..., tf.newaxis] if missing else saliency
