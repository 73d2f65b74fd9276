"""Gaussian blur as one matrix per axis: exact borders, XLA and any device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

# A (2048, 2048) float32 matrix is 16 MB inside the graph: enough is enough.
LONGEST_AXIS = 2048


def gaussian_matrix(length: int, sigma: float) -> npt.NDArray[np.float32]:
    """Build the matrix that blurs an axis, reflecting at the borders.

    `M[i, j] = sum of w(p - i) over all p that the border folds onto j`, with `w` the
    normalized Gaussian cut at 4 sigma and the border `d c b a | a b c d | d c b a`:
    the same as `scipy.ndimage.gaussian_filter1d`. Every row sums to one.

    Args:
        length: Length of the axis, 1 to 2048.
        sigma: Standard deviation in pixels, positive.

    Returns:
        Float32 `(length, length)`.

    Raises:
        ValueError: If `sigma` is not positive or the axis is too long.

    Reference:
        Border and cut as in the masks of arXiv 1711.00138 (visualize_atari).

    Example:
        >>> from keras_jsigr.saliency.gaussian_blur import gaussian_matrix
        >>> gaussian_matrix(5, 1.0).sum(axis=1).round(5).tolist()
        [1.0, 1.0, 1.0, 1.0, 1.0]
    """
    if length > LONGEST_AXIS:
        raise ValueError(
            f"Got an axis of {length} to blur, expected at most {LONGEST_AXIS}. "
            "Use the 'mean' or 'zero' baseline for long sequences."
        )
    offsets, weights = _window(sigma)
    folded = (np.arange(length)[:, None] + offsets) % (2 * length)
    folded = np.where(folded < length, folded, 2 * length - 1 - folded)
    matrix = np.zeros((length, length))
    np.add.at(matrix, (np.arange(length)[:, None], folded), weights)
    return matrix.astype(np.float32)


def blurred_along(
    values: npt.NDArray[np.float32], axis: int, sigma: float
) -> npt.NDArray[np.float32]:
    """Blur an array along one axis of any length, as `gaussian_matrix` does.

    Args:
        values: Any shape.
        axis: The axis, 0 and up.
        sigma: Standard deviation in pixels, positive.

    Returns:
        Float, shaped like `values`.

    Raises:
        ValueError: If `sigma` is not positive.

    Example:
        >>> import numpy as np
        >>> from keras_jsigr.saliency.gaussian_blur import blurred_along
        >>> blurred_along(np.ones((1, 4), "float32"), 1, 1.0).round(5).tolist()
        [[1.0, 1.0, 1.0, 1.0]]
    """
    length = values.shape[axis]
    if length <= LONGEST_AXIS:
        blurred = np.tensordot(gaussian_matrix(length, sigma), values, (1, axis))
        return np.asarray(np.moveaxis(blurred, 0, axis))
    offsets, weights = _window(sigma)
    pad = [(0, 0)] * values.ndim
    pad[axis] = (offsets[-1], offsets[-1])
    padded = np.pad(values, pad, mode="symmetric")
    return np.apply_along_axis(np.convolve, axis, padded, weights, mode="valid")


def _window(sigma: float) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Return the offsets up to 4 sigma and their weights."""
    if not 0.0 < sigma < float("inf"):
        raise ValueError(
            f"Got sigma {sigma}, expected a positive number of pixels. "
            "Use `None` for the default."
        )
    radius = int(4.0 * sigma + 0.5)
    offsets = np.arange(-radius, radius + 1)
    weights = np.exp(-0.5 * (offsets / sigma) ** 2)
    return offsets, weights / weights.sum()


def gaussian_blur(x: Any, sigma: float, axes: Sequence[int]) -> tf.Tensor:
    """Blur a batch along the given axes.

    Args:
        x: Float `(B, *S)` of any float dtype; computed in float32 or wider.
        sigma: Standard deviation in pixels, positive.
        axes: The axes to blur, 1 and up, with fixed lengths.

    Returns:
        Tensor shaped and typed like `x`.

    Raises:
        ValueError: If `sigma` is not positive or an axis is too long.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.saliency.gaussian_blur import gaussian_blur
        >>> gaussian_blur(tf.ones((1, 4, 4, 1)), 1.0, (1, 2)).shape.as_list()
        [1, 4, 4, 1]
    """
    x = tf.convert_to_tensor(x)
    wide = x if x.dtype == tf.float64 else tf.cast(x, tf.float32)
    shape = tf.shape(x)
    for axis in axes:
        length = x.shape[axis]
        matrix = tf.constant(gaussian_matrix(length, sigma), wide.dtype)
        after = int(np.prod(x.shape[axis + 1 :], dtype=np.int64))
        if after == 1:
            # One large product beats a product per row.
            wide = tf.matmul(tf.reshape(wide, (-1, length)), matrix, transpose_b=True)
        else:
            wide = tf.matmul(matrix, tf.reshape(wide, (-1, length, after)))
    blurred = tf.reshape(tf.cast(wide, x.dtype), shape)
    return tf.ensure_shape(blurred, x.shape)
