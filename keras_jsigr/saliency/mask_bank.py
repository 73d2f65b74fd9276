"""The fixed set of occlusion masks, and the functions that turn scores into maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Number
from typing import Any

import numpy as np

from keras_jsigr.saliency.grid_functions import FloatArray, discs, groups, hats
from keras_jsigr.saliency.layout import Layout, map_axes, resolve_layout


@dataclass(frozen=True, eq=False, repr=False)
class MaskBank:
    """K occlusion masks and K interpolation functions; make one by `make_mask_bank`.

    Two banks are equal if their configurations are; pickling keeps only these.

    Attributes:
        input_shape: Shape of one example, without the batch axis.
        layout: `"image"`, `"sequence"` or `"features"`.
        grid: Cells along each of two axes; their product bounds K otherwise.
        sigma: Blur of the masks in pixels or time steps; unused for features.
        map_shape: `(H, W)`, `(T,)` or `(D,)`.
        masks: Float32 `(K, *map_shape)` in [0, 1], each with maximum one.
        hats: Float32 `(K, *map_shape)`, non-negative, summing to one everywhere.

    Example:
        >>> from keras_jsigr.saliency.mask_bank import make_mask_bank
        >>> bank = make_mask_bank((28, 28, 1), grid=5)
        >>> bank.size, bank.map_shape
        (25, (28, 28))
    """

    input_shape: tuple[int, ...]
    layout: Layout
    grid: tuple[int, int]
    sigma: float
    map_shape: tuple[int, ...]
    masks: FloatArray
    hats: FloatArray

    @property
    def size(self) -> int:
        """The number of masks, K."""
        return len(self.masks)

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config` needs, as plain JSON values."""
        return {
            "input_shape": list(self.input_shape),
            "grid": list(self.grid),
            "sigma": self.sigma,
            "layout": self.layout,
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> MaskBank:
        """Make the same bank again from `get_config()`."""
        return make_mask_bank(**config)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, MaskBank):
            return NotImplemented
        return self.get_config() == other.get_config()

    def __hash__(self) -> int:
        return hash((self.input_shape, self.grid, self.sigma, self.layout))

    def __repr__(self) -> str:
        return f"MaskBank({self.get_config()})"

    def __reduce__(self) -> tuple[Any, ...]:
        return MaskBank.from_config, (self.get_config(),)


def make_mask_bank(
    input_shape: Sequence[int | None],
    grid: int | Sequence[int] = 5,
    *,
    sigma: float | None = None,
    layout: Layout | None = None,
) -> MaskBank:
    """Make the occlusion masks for one shape of example.

    - Images `(H, W, C)`: cell centres `((i + 1/2) H / G, (j + 1/2) W / G)`; a mask is a
      disc of radius one pixel around a centre, blurred by a Gaussian and divided by
      its maximum; the hats are bilinear on the centres and clamped at the edges.
    - Sequences `(T, D)`: `K = min(T, G^2)` such windows along time, for all of D alike.
    - Features `(D,)`: one feature each, or `K = G^2` contiguous groups if `D > G^2`.

    Args:
        input_shape: Shape of one example, without the batch axis.
        grid: G, or `(rows, columns)`; at most one cell per pixel.
        sigma: Blur of the masks in pixels. Default for images: 5/80 of the mean
            side; for sequences 5/16 of a window; at least 1.
        layout: Names the layout where the rank would mislead, see `resolve_layout`.

    Returns:
        The bank.

    Raises:
        ValueError: If shape, grid or sigma are out of range.

    Reference:
        arXiv 1711.00138, masks as in its code (sigma 5 on 80 x 80 frames).

    Example:
        >>> from keras_jsigr.saliency.mask_bank import make_mask_bank
        >>> bank = make_mask_bank((8, 8, 3), grid=(2, 4))
        >>> bank.masks.shape, float(bank.hats.sum(axis=0).max())
        ((8, 8, 8), 1.0)
    """
    layout = resolve_layout(input_shape, layout)
    shape = tuple(int(n or 0) for n in input_shape)
    map_shape = shape[: map_axes(layout)]
    cells = _cells(grid, map_shape)
    count = min(map_shape[0], cells[0] * cells[1])
    if layout == "features":
        indicators = groups(map_shape[0], count)
        return MaskBank(shape, layout, cells, 0.0, map_shape, indicators, indicators)
    sides: tuple[int, ...] = cells if layout == "image" else (count,)
    side = float(np.mean(map_shape))
    rule = 5 / 80 * side if layout == "image" else 5 / 16 * side / count
    width = max(1.0, rule) if sigma is None else float(sigma)
    masks = discs(map_shape, sides, width)
    tents = hats(map_shape, sides)
    return MaskBank(shape, layout, cells, width, map_shape, masks, tents)


def _cells(grid: int | Sequence[int], map_shape: tuple[int, ...]) -> tuple[int, int]:
    sides: Any = grid  # Anything may come from outside.
    pair = (sides, sides) if isinstance(sides, Number) else tuple(sides)
    whole = [isinstance(g, Integral) and not isinstance(g, bool) for g in pair]
    fits = len(pair) == 2 and all(whole) and all(g > 0 for g in pair)
    if fits and len(map_shape) == 2:
        fits = pair[0] <= map_shape[0] and pair[1] <= map_shape[1]
    if not fits:
        raise ValueError(
            f"Got grid {grid!r} for maps of shape {map_shape}, expected a positive "
            "integer or a pair, at most one cell per pixel. Use a smaller grid."
        )
    return int(pair[0]), int(pair[1])
