"""Functions on a grid of cells: discs that occlude, hats that interpolate."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from keras_jsigr.saliency.gaussian_blur import blurred_along

FloatArray = npt.NDArray[np.float32]


def groups(length: int, count: int) -> FloatArray:
    """Split `length` features into `count` contiguous groups.

    `g_k[d] = 1 if floor(d count / length) = k else 0`.

    Args:
        length: Number of features, D.
        count: Number of groups, K, at most D.

    Returns:
        Float32 `(K, D)` of zeros and ones, summing to one over K.

    Example:
        >>> from keras_jsigr.saliency.grid_functions import groups
        >>> groups(3, 2).tolist()
        [[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    """
    owner = np.arange(length) * count // length
    return np.asarray(owner == np.arange(count)[:, None], np.float32)


def hats(shape: tuple[int, ...], sides: tuple[int, ...]) -> FloatArray:
    """Build products of linear hats on the cell centres, clamped at the edges.

    Along an axis of n pixels the centres are `(i + 1/2) n / G`, pixel p lies at
    `p + 1/2`, and hat i is the linear interpolation of the i-th unit vector.

    Args:
        shape: Lengths of one or two axes.
        sides: Cells along each axis.

    Returns:
        Float32 `(K, *shape)`, non-negative, summing to one over K.

    Example:
        >>> from keras_jsigr.saliency.grid_functions import hats
        >>> hats((4,), (2,)).tolist()
        [[1.0, 0.75, 0.25, 0.0], [0.0, 0.25, 0.75, 1.0]]
    """
    product = np.ones(())
    for n, count in zip(shape, sides, strict=True):
        at, centres = np.arange(n) + 0.5, _centres(n, count)
        axis = np.stack([np.interp(at, centres, unit) for unit in np.eye(count)])
        product = np.multiply.outer(product, axis)
    return _by_cell(product, shape)


def discs(shape: tuple[int, ...], sides: tuple[int, ...], sigma: float) -> FloatArray:
    """Build blurred discs of radius one pixel on the cell centres.

    `m_k = blur(1[distance to centre k <= 1]) / max`.

    Args:
        shape: Lengths of one or two axes.
        sides: Cells along each axis.
        sigma: Standard deviation of the blur in pixels, positive.

    Returns:
        Float32 `(K, *shape)` in [0, 1], each with maximum one.

    Raises:
        ValueError: If `sigma` is not positive or an axis is too long.

    Reference:
        arXiv 1711.00138, as in its code.

    Example:
        >>> from keras_jsigr.saliency.grid_functions import discs
        >>> discs((8, 8), (2, 2), 1.0).max(axis=(1, 2)).tolist()
        [1.0, 1.0, 1.0, 1.0]
    """
    square = np.zeros(())
    for n, count in zip(shape, sides, strict=True):
        apart = np.arange(n) + 0.5 - _centres(n, count)[:, None]
        square = np.add.outer(square, apart**2)
    masks = _by_cell(square <= 1.0, shape)
    for axis in range(1, masks.ndim):
        masks = blurred_along(masks, axis, sigma)
    highest = masks.max(axis=tuple(range(1, masks.ndim)), keepdims=True)
    return np.asarray(masks / highest, np.float32)


def _centres(length: int, count: int) -> npt.NDArray[np.float64]:
    return (np.arange(count) + 0.5) * length / count


def _by_cell(product: npt.NDArray[Any], shape: tuple[int, ...]) -> FloatArray:
    """Bring axes (K1, H, K2, W) to (K1 * K2, H, W)."""
    order = (0, 2, 1, 3) if len(shape) == 2 else (0, 1)
    cells = product.transpose(order).reshape(-1, *shape)
    return np.asarray(cells, np.float32)
