"""The shapes that the Square attack builds perturbations of under L2 and L1."""

from __future__ import annotations

from typing import Any

import numpy as np


def bump(height: int, width: int) -> np.ndarray[Any, Any]:
    """Build a hill that falls off from the centre in squares.

    `sum_{j = d + 1}^{m} 1 / j^2` at the distance `d` from the centre in the maximum
    norm, with `m = max(height, width) // 2 + 1`.

    Args:
        height: In pixels.
        width: In pixels.

    Returns:
        Float64 `(height, width)`, positive.

    Reference:
        arXiv 1912.00049.

    Example:
        >>> from keras_jsigr.attacks.queries.square_bumps import bump
        >>> bump(3, 3).tolist()
        [[0.25, 0.25, 0.25], [0.25, 1.25, 0.25], [0.25, 0.25, 0.25]]
    """
    rows = np.abs(np.arange(height) - height // 2)
    columns = np.abs(np.arange(width) - width // 2)
    distance = np.maximum(rows[:, None], columns)
    terms = 1.0 / np.arange(1, max(height, width) // 2 + 2) ** 2
    hill: np.ndarray[Any, Any] = np.cumsum(terms[::-1])[::-1][distance]
    return hill


def dipole(height: int, width: int, *, across: bool = False) -> np.ndarray[Any, Any]:
    """Build a hill beside a valley, of Euclidean length one.

    Args:
        height: In pixels.
        width: In pixels.
        across: Whether they lie side by side instead of one above the other.

    Returns:
        Float64 `(height, width)`; a single pixel is one. A single row or column has
        hill and valley along its length in any case.

    Reference:
        arXiv 1912.00049.

    Example:
        >>> from keras_jsigr.attacks.queries.square_bumps import dipole
        >>> (dipole(2, 1) * 2**0.5).round(3).tolist()
        [[1.0], [-1.0]]
    """
    if height == width == 1:
        return np.ones((1, 1))
    if (across and width > 1) or height == 1:
        upright: np.ndarray[Any, Any] = dipole(width, height).T
        return upright
    hill, valley = bump(height // 2, width), bump(height - height // 2, width)
    hill, valley = (half / np.linalg.norm(half) for half in (hill, valley))
    # Each half has length one.
    both: np.ndarray[Any, Any] = np.concatenate([hill, -valley]) / np.sqrt(2.0)
    return both


def dipole_table(
    sides: list[tuple[int, int]], extent: tuple[int, int]
) -> np.ndarray[Any, Any]:
    """List the dipoles of all window sizes for looking up single pixels.

    Args:
        sides: Height and width of the windows of every stage.
        extent: `(H, W)` of the image in pixels.

    Returns:
        Float64 `(stages, 2 * H * W + 1)`: the dipole in the corner of an image, both
        ways round, flat, and a zero.

    Example:
        >>> from keras_jsigr.attacks.queries.square_bumps import dipole_table
        >>> dipole_table([(1, 1)], (1, 2)).tolist()
        [[1.0, 0.0, 1.0, 0.0, 0.0]]
    """
    table = np.zeros((len(sides), 2, *extent))
    for stage, (height, width) in enumerate(sides):
        for across in (0, 1):
            window = dipole(height, width, across=bool(across))
            table[stage, across, :height, :width] = window
    return np.pad(table.reshape(len(sides), -1), [(0, 0), (0, 1)])


def tiles(extent: tuple[int, int]) -> tuple[np.ndarray[Any, Any], ...]:
    """Lay dipoles on a grid of about five times five, both ways round.

    Args:
        extent: `(H, W)` of the image in pixels.

    Returns:
        The tuple of float64 `(H, W)`, dipoles one above the other; float64 `(H, W)`,
        side by side; and int64 `(H, W)`, the number of the tile, -1 in the margin.

    Reference:
        arXiv 1912.00049.

    Example:
        >>> from keras_jsigr.attacks.queries.square_bumps import tiles
        >>> tiles((2, 2))[2].tolist()
        [[0, 1], [2, 3]]
    """
    sides = [max(length // 5, 1) for length in extent]
    counts = [extent[axis] // sides[axis] for axis in (0, 1)]
    over = [extent[axis] - counts[axis] * sides[axis] for axis in (0, 1)]
    margins = [(rest // 2, rest - rest // 2) for rest in over]
    numbers = np.arange(counts[0] * counts[1]).reshape(counts)
    number = np.kron(numbers, np.ones(sides, "int64"))
    above, beside = (
        np.pad(np.tile(dipole(*sides, across=across), counts), margins)
        for across in (False, True)
    )
    return above, beside, np.pad(number, margins, constant_values=-1)
