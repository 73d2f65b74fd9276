"""What replaces a part of an input: layouts, baselines, and the mask bank."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral, Number
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from keras_jsigr.core import arguments
from keras_jsigr.core.arguments import BASELINES, BaselineName
from keras_jsigr.core.inputs import as_float

Layout = Literal["image", "sequence", "features"]
# What to put in place of a part of the input: a named baseline or a number.
Replacement = BaselineName | float
FloatArray = npt.NDArray[np.float32]
_RANKS = {"image": (2, 3), "sequence": (1, 2), "features": (1,)}
_BY_RANK: dict[int, Layout] = {1: "features", 2: "sequence", 3: "image"}
# The longest axis to blur by one matrix: (2048, 2048) float32 is 16 MB in the graph.
LONGEST_AXIS = 2048


def resolve_layout(input_shape: Sequence[int | None], layout: Layout | None = None) -> Layout:
    """Decide what the axes of an example mean."""
    shape = tuple(input_shape)
    if not all(isinstance(n, int) and n > 0 for n in shape):
        raise ValueError(
            f"Got input shape {shape}, expected fixed positive lengths without the "
            "batch axis. Give the shape of the data, for example `x.shape[1:]`."
        )
    found = layout or _BY_RANK.get(len(shape))
    if found and len(shape) in _RANKS.get(found, ()):
        return found
    raise ValueError(
        f"Got layout {layout!r} for input shape {shape}, expected (D,) 'features', "
        "(T, D) 'sequence' or (H, W[, C]) 'image'. Name the layout or reshape the data "
        "(with a callable, `lambda x: model(tf.reshape(x, (-1, *shape)))`). Methods of "
        "gradients take any shape with `reduce=False`."
    )


def check_channels_last(shape: Sequence[int | None]) -> None:
    """Refuse `(C, H, W)`: one or three channels, and more columns than that."""
    if len(shape) == 3 and shape[0] in (1, 3) and min(n or 0 for n in shape[1:]) > 4:
        raise ValueError(
            f"Got examples of shape {shape}, which look like (C, H, W): expected the "
            "channels last. Use np.moveaxis(x, 1, -1), and in a callable "
            "`lambda x: f(tf.transpose(x, (0, 3, 1, 2)))`, or say layout='image'."
        )


def map_axes(layout: Layout) -> int:
    """Count the axes of an example that its saliency map keeps."""
    return 2 if layout == "image" else 1


def gaussian_matrix(length: int, sigma: float) -> FloatArray:
    """Build the matrix that blurs an axis, reflecting at the borders."""
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


def blurred_along(values: FloatArray, axis: int, sigma: float) -> FloatArray:
    """Blur an array along one axis of any length, as `gaussian_matrix` does."""
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
        raise ValueError(f"Got sigma {sigma}, expected a positive number of pixels, or `None`.")
    radius = int(4.0 * sigma + 0.5)
    offsets = np.arange(-radius, radius + 1)
    weights = np.exp(-0.5 * (offsets / sigma) ** 2)
    return offsets, weights / weights.sum()


def compute_baseline(
    x: Any,
    kind: BaselineName = "blur",
    *,
    layout: Layout | None = None,
    sigma: float | None = None,
    low: float = 0.0,
) -> tf.Tensor:
    """Compute `A(x)`, what an example looks like without its information."""
    check_baseline("baseline", kind)
    x = as_float(x)
    if kind == "zero":
        return tf.zeros_like(x) + tf.cast(low, x.dtype)
    layout = resolve_layout(tuple(x.shape[1:]), layout)
    axes = tuple(range(1, 1 + map_axes(layout)))
    wide = x if x.dtype == tf.float64 else tf.cast(x, tf.float32)
    if kind == "mean" or layout == "features":
        mean = tf.reduce_mean(wide, axes, keepdims=True)
        return tf.zeros_like(x) + tf.cast(mean, x.dtype)
    side = float(np.mean([x.shape[axis] for axis in axes]))
    width = max(1.0, 3 / 80 * side) if sigma is None else sigma
    for axis in axes:
        length = x.shape[axis]
        matrix = tf.constant(gaussian_matrix(length, width), wide.dtype)
        after = int(np.prod(x.shape[axis + 1 :], dtype=np.int64))
        if after == 1:
            # One large product beats a product per row.
            wide = tf.matmul(tf.reshape(wide, (-1, length)), matrix, transpose_b=True)
        else:
            wide = tf.matmul(matrix, tf.reshape(wide, (-1, length, after)))
    blurred = tf.reshape(tf.cast(wide, x.dtype), tf.shape(x))
    return tf.ensure_shape(blurred, x.shape)


def check_baseline(name: str, kind: str) -> None:
    """Refuse what is no name of a baseline."""
    advice = "Use 'blur' for images, 'mean' for tables."
    arguments.choice(name, kind, BASELINES, advice=advice)


def hats(shape: tuple[int, ...], sides: tuple[int, ...]) -> FloatArray:
    """Build products of linear hats on the cell centres, clamped at the edges."""
    product = np.ones(())
    for n, count in zip(shape, sides, strict=True):
        at, centres = np.arange(n) + 0.5, (np.arange(count) + 0.5) * n / count
        axis = np.stack([np.interp(at, centres, unit) for unit in np.eye(count)])
        product = np.multiply.outer(product, axis)
    return _by_cell(product, shape)


def discs(shape: tuple[int, ...], sides: tuple[int, ...], sigma: float) -> FloatArray:
    """Build blurred discs of radius one pixel on the cell centres."""
    square = np.zeros(())
    for n, count in zip(shape, sides, strict=True):
        at, centres = np.arange(n) + 0.5, (np.arange(count) + 0.5) * n / count
        apart = at - centres[:, None]
        square = np.add.outer(square, apart**2)
    masks = _by_cell(square <= 1.0, shape)
    for axis in range(1, masks.ndim):
        masks = blurred_along(masks, axis, sigma)
    highest = masks.max(axis=tuple(range(1, masks.ndim)), keepdims=True)
    return np.asarray(masks / highest, np.float32)


def _by_cell(product: npt.NDArray[Any], shape: tuple[int, ...]) -> FloatArray:
    """Bring axes (K1, H, K2, W) to (K1 * K2, H, W)."""
    order = (0, 2, 1, 3) if len(shape) == 2 else (0, 1)
    cells = product.transpose(order).reshape(-1, *shape)
    return np.asarray(cells, np.float32)


@dataclass(frozen=True)
class MaskBank:
    """K occlusion masks and K interpolation functions, made by `make_mask_bank`."""

    input_shape: tuple[int, ...]
    layout: Layout
    grid: tuple[int, int]
    sigma: float
    map_shape: tuple[int, ...]
    masks: FloatArray = field(repr=False, compare=False)
    hats: FloatArray = field(repr=False, compare=False)

    @property
    def size(self) -> int:
        """The number of masks, K."""
        return len(self.masks)

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config` needs, as plain JSON values."""
        config = {"input_shape": list(self.input_shape), "grid": list(self.grid)}
        return {**config, "sigma": self.sigma, "layout": self.layout}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> MaskBank:
        """Make the same bank again from `get_config()`."""
        return make_mask_bank(**config)

    def __reduce__(self) -> tuple[Any, ...]:
        return MaskBank.from_config, (self.get_config(),)


def make_mask_bank(
    input_shape: Sequence[int | None],
    grid: int | Sequence[int] = 5,
    *,
    sigma: float | None = None,
    layout: Layout | None = None,
) -> MaskBank:
    """Make the occlusion masks for one shape of example."""
    layout = resolve_layout(input_shape, layout)
    shape = tuple(int(n or 0) for n in input_shape)
    map_shape = shape[: map_axes(layout)]
    cells = _cells(grid, map_shape)
    count = min(map_shape[0], cells[0] * cells[1])
    if layout == "features":
        # Contiguous groups of features.
        owner = np.arange(map_shape[0]) * count // map_shape[0]
        indicators = np.asarray(owner == np.arange(count)[:, None], np.float32)
        return MaskBank(shape, layout, cells, 0.0, map_shape, indicators, indicators)
    sides: tuple[int, ...] = cells if layout == "image" else (count,)
    side = float(np.mean(map_shape))
    rule = 5 / 80 * side if layout == "image" else 5 / 16 * side / count
    width = max(1.0, rule) if sigma is None else float(sigma)
    masks, tents = discs(map_shape, sides, width), hats(map_shape, sides)
    return MaskBank(shape, layout, cells, width, map_shape, masks, tents)


def _cells(grid: int | Sequence[int], map_shape: tuple[int, ...]) -> tuple[int, int]:
    sides: Any = grid  # unchecked
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


def interpolate(bank: MaskBank, coefficients: Any) -> tf.Tensor:
    """Turn coefficients `(B, K)` on the cells into maps, `sum_k c_k hat_k`."""
    coefficients = tf.cast(coefficients, tf.float32)
    if coefficients.shape.rank != 2 or coefficients.shape[-1] != bank.size:
        raise ValueError(
            f"Got coefficients of shape {tuple(coefficients.shape)}, expected "
            f"(B, {bank.size}). Use the bank that they were computed with."
        )
    hats = tf.constant(bank.hats.reshape(bank.size, -1))
    return tf.reshape(tf.matmul(coefficients, hats), (-1, *bank.map_shape))


def expand_map(saliency: Any, x: Any) -> tf.Tensor:
    """Give a map the channel axis that it needs to be multiplied with the data."""
    saliency, x = tf.convert_to_tensor(saliency), tf.convert_to_tensor(x)
    missing = x.shape.rank - saliency.shape.rank
    sides = zip(saliency.shape[1:], x.shape[1:], strict=False)
    if missing not in (0, 1) or any(a not in (1, None, b) for a, b in sides):
        raise ValueError(
            f"Got a map of shape {tuple(saliency.shape)} for data of shape "
            f"{tuple(x.shape)}, expected the same axes or one channel axis more, the "
            "last one, in the data. Make the bank with the layout of the data."
        )
    return saliency[..., tf.newaxis] if missing else saliency


def replacement(
    x: tf.Tensor, baseline: Replacement, layout: Layout | None, low: float = 0.0
) -> tf.Tensor:
    """Compute the baseline of every example; `low` is the value for `"zero"`."""
    if isinstance(baseline, str):
        return compute_baseline(x, baseline, layout=layout, low=low)
    return compute_baseline(x, "zero", low=baseline)


def check_replacement(name: str, baseline: Replacement) -> None:
    """Refuse what is neither the name of a baseline nor a number."""
    check: Any = check_baseline if isinstance(baseline, str) else arguments.number
    check(name, baseline)
