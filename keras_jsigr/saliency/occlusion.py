"""Occlusion and RISE: the mean score where a place is masked, without gradients."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from keras_jsigr.core import arguments, batching
from keras_jsigr.core.batching import Core
from keras_jsigr.core.inputs import as_float
from keras_jsigr.core.logits import as_logits
from keras_jsigr.core.padding import without_padding
from keras_jsigr.core.scores import class_score
from keras_jsigr.saliency.base import (
    RangedMethod,
    check_replaceable,
    layout_of,
    setting,
    target_probability,
    targets_of,
)
from keras_jsigr.saliency.masks import (
    Layout,
    Replacement,
    check_replacement,
    map_axes,
    replacement,
    resolve_layout,
)

TargetScore = Literal["prob", "log_prob", "margin", "logit"]
Shape = tuple[int, ...]
# From the number of the first mask of a group and its size to masks, `(size, ...)`.
MasksFn = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
# From k copies of the batch `(k B, *S)` and k to the scores `(k B,)`.
ScoreOf = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
# Without a patch size: this many patches along each side of an image.
_PER_SIDE = 7


def masked_mean(
    score_of: ScoreOf,
    x: tf.Tensor,
    away: tf.Tensor,
    count: int,
    masks_of: MasksFn,
    map_shape: Shape,
    chunk: int | None = None,
) -> tf.Tensor:
    """Average the scores of `x + mask * away` at every place, weighted by the masks."""
    # The masks get a channel axis where the data have one.
    channels = [1] * (x.shape.rank - 1 - len(map_shape))

    def part(first: tf.Tensor, size: tf.Tensor) -> Any:
        masks = tf.ensure_shape(masks_of(first, size), (None, *map_shape))
        shares = tf.reshape(tf.cast(masks, x.dtype), (size, 1, *map_shape, *channels))
        scores = score_of(batching.as_rows(x + shares * away), size)
        scores = tf.reshape(scores, (size, tf.shape(x)[0]))
        flat = tf.reshape(masks, (size, -1))
        return tf.matmul(scores, flat, transpose_a=True), tf.reduce_sum(flat, axis=0)

    cover = tf.zeros(int(np.prod(map_shape)))
    total = tf.zeros((tf.shape(x)[0], 1)) + cover
    size, like = batching.copies_at_once(x, chunk), (total, cover)
    total, cover = batching.chunked_sum(count, size, part, like)
    return tf.reshape(tf.math.divide_no_nan(total, cover), (-1, *map_shape))


@dataclass(frozen=True, kw_only=True)
class MaskingMethod(RangedMethod):
    """A method that needs no gradient of the model: forward passes only.

    Args:
        baseline: What masked places show: a number, `"zero"` (the low end of the input
            range), `"blur"` or `"mean"`.
        score: `"prob"`, `"log_prob"`, `"margin"` or `"logit"`.
    """

    baseline: Replacement = setting("zero", check_replacement)
    score: TargetScore = setting("prob", arguments.choice, get_args(TargetScore))

    @abstractmethod
    def maps(self, score_of: ScoreOf, x: tf.Tensor, map_shape: Shape) -> tf.Tensor:
        """Compute the maps."""

    def check(self, map_shape: Shape) -> None:
        """Refuse settings that do not fit the shape of the maps; none by default."""

    def replaced(self, x: tf.Tensor) -> tf.Tensor:
        """Return what the examples show where they are masked."""
        return replacement(x, self.baseline, self.layout, self.known_range[0])

    def core(self, model: Any, probe: Any) -> Core:
        """Return the traceable function of `(x, y)`; see `SaliencyMethod`."""
        shape, kind = tuple(probe.shape[1:]), self.known_kind
        layout = layout_of(model, probe, self.layout)
        check_replaceable(model, probe, self.baseline, layout)
        map_shape = shape[: map_axes(layout)]
        self.check(map_shape)
        beside = without_padding(model, as_logits(model, probe))

        def explain(x: tf.Tensor, y: tf.Tensor | None) -> tf.Tensor:
            x = as_float(x)
            logits_fn = beside(x)
            chosen = targets_of(y, kind)(logits_fn(x))

            def score_of(rows: tf.Tensor, copies: tf.Tensor) -> tf.Tensor:
                logits, targets = logits_fn(rows), tf.tile(chosen, (copies, 1))
                if self.score == "prob":
                    return target_probability(logits, targets, kind)
                return class_score(logits, targets, self.score, kind)

            return self.maps(score_of, x, map_shape)

        return explain


def _check_sides(name: str, value: Any) -> None:
    for side in np.atleast_1d(value).tolist():
        arguments.count(name, side)


@dataclass(frozen=True, kw_only=True)
class Occlusion(MaskingMethod):
    """Compute what the score loses where a patch covers the input.

    `s(x) - mean s(x_k)`, the mean over the patches k that cover a place, signed. A
    patch is a rectangle of an image, a stretch of a sequence, or neighbouring features;
    the last one ends where the row ends. One forward pass per position, by default 49
    to 100 of them.

    Args:
        patch: Side in pixels, steps or features, or `(rows, columns)`. Default: a
            seventh of each side of an image, a 49th of anything else.
        stride: Distance of the positions, or a pair, at most the patch; default: the
            patch.

    Reference:
        arXiv 1311.2901, section 4.2.

    Example:
        >>> from keras_jsigr.saliency import explain
        >>> explain(lambda x: 2 * x, [[3.0, 1.0]], method="occlusion", score="logit")
        array([[6., 0.]], dtype=float32)
    """

    patch: int | Sequence[int] | None = setting(None, _check_sides)
    stride: int | Sequence[int] | None = setting(None, _check_sides)

    def check(self, map_shape: Shape) -> None:
        """Refuse a patch that does not fit; see `MaskingMethod`."""
        self._positions(map_shape)

    def maps(self, score_of: ScoreOf, x: tf.Tensor, map_shape: Shape) -> tf.Tensor:
        """Compute the losses; see `MaskingMethod`."""
        patch, positions = self._positions(map_shape)
        corners = tf.constant(positions, tf.int32)

        def masks_of(first: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
            return _patches(corners[first : first + size], patch, map_shape)

        away, count = self.replaced(x) - x, len(positions)
        covered = masked_mean(score_of, x, away, count, masks_of, map_shape, self.chunk)
        whole = score_of(x, tf.constant(1))
        return tf.reshape(whole, (-1, *[1] * len(map_shape))) - covered

    def _positions(self, map_shape: Shape) -> tuple[Shape, npt.NDArray[np.int64]]:
        """Return the patch's sides and the corners `(K, axes)` of all positions."""
        parts = _PER_SIDE if len(map_shape) == 2 else _PER_SIDE**2
        default = tuple(max(1, round(side / parts)) for side in map_shape)
        patch = _sides("patch", self.patch, default)
        stride = _sides("stride", self.stride, patch)
        if any(p > side for p, side in zip(patch, map_shape, strict=True)):
            raise ValueError(
                f"Got patch {patch} for maps of shape {map_shape}, expected at most "
                "that. Use a smaller patch."
            )
        if any(s > p for s, p in zip(stride, patch, strict=True)):
            raise ValueError(
                f"Got stride {stride} for patch {patch}: no patch would cover the "
                "places in between. Use a stride of at most the patch."
            )
        starts = [
            sorted({*range(0, side - p + 1, s), side - p})
            for side, p, s in zip(map_shape, patch, stride, strict=True)
        ]
        return patch, np.array(list(product(*starts)))


def _sides(name: str, value: Any, default: Shape) -> Shape:
    """Return a number per axis of the maps."""
    if value is None:
        return default
    sides = np.atleast_1d(value).tolist()
    sides = sides * len(default) if len(sides) == 1 else sides
    if len(sides) != len(default):
        raise ValueError(
            f"Got {name} {value!r} for maps of {len(default)} axes, expected one "
            "number or one per axis. Use one number."
        )
    return tuple(sides)


def _patches(corners: tf.Tensor, patch: Shape, map_shape: Shape) -> tf.Tensor:
    """Return masks `(K, *map_shape)`, one inside the patches with these corners."""
    masks = tf.ones((tf.shape(corners)[0], *[1] * len(map_shape)))
    for axis, (side, length) in enumerate(zip(patch, map_shape, strict=True)):
        start = corners[:, axis, tf.newaxis]
        inside = (tf.range(length) >= start) & (tf.range(length) < start + side)
        shape = [-1, *(length if a == axis else 1 for a in range(len(map_shape)))]
        masks *= tf.reshape(tf.cast(inside, tf.float32), shape)
    return masks


@dataclass(frozen=True, kw_only=True)
class RISE(MaskingMethod):
    """Average the score over random masks that keep a place.

    `sum_k m_k s(A + m_k (x - A)) / sum_k m_k`. A mask is bilinear between random zeros
    and ones on a grid of cells, at a random offset: along both axes of an image, along
    time for a sequence; features are kept or not one by one. `samples` forward passes,
    of the same masks for every example.

    Args:
        samples: Number of masks.
        grid: Cells per side, or a pair; unused for features.
        keep: Probability that a node of the grid is one.
        seed: Of the masks.

    Reference:
        arXiv 1806.07421, equation 6, with the sum of the masks for its expectation.

    Example:
        >>> from keras_jsigr.saliency import explain
        >>> explain(lambda x: 9.0 * x, [[0.0, 1.0]], method="rise").argmax(axis=1)
        array([1])
    """

    samples: int = setting(1000, arguments.count)
    grid: int | Sequence[int] = setting(7, _check_sides)
    keep: float = setting(0.5, arguments.share)
    seed: int = setting(0, arguments.count, minimum=0)

    def check(self, map_shape: Shape) -> None:
        """Refuse a grid that does not fit; see `MaskingMethod`."""
        _sides("grid", self.grid, map_shape)

    def maps(self, score_of: ScoreOf, x: tf.Tensor, map_shape: Shape) -> tf.Tensor:
        """Compute the mean scores; see `MaskingMethod`."""
        layout = resolve_layout(tuple(x.shape[1:]), self.layout)
        masks_of, base = self.masks_of(layout, map_shape), self.replaced(x)
        away, count = x - base, self.samples
        return masked_mean(score_of, base, away, count, masks_of, map_shape, self.chunk)

    def masks_of(self, layout: Layout, map_shape: Shape) -> MasksFn:
        """Return the function that makes groups of masks of this shape."""
        cells = _sides("grid", self.grid, map_shape)
        # The offset is up to one cell: one node more than the cells have borders.
        nodes = map_shape if layout == "features" else tuple(c + 2 for c in cells)
        draw, n = partial(tf.random.stateless_uniform, alg="philox"), self.samples
        kept = tf.cast(draw((n, *nodes), [0, self.seed]) < self.keep, tf.float32)
        offsets = draw((n, len(map_shape)), [1, self.seed])

        def masks_of(first: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
            masks = kept[first : first + size]
            if layout == "features":
                return masks
            hats = [
                _hats(offsets[first : first + size, axis], length, cells[axis])
                for axis, length in enumerate(map_shape)
            ]
            if len(hats) == 1:
                return tf.linalg.matvec(hats[0], masks)
            return tf.matmul(hats[0] @ masks, hats[1], transpose_b=True)

        return masks_of


def _hats(offsets: tf.Tensor, length: int, cells: int) -> tf.Tensor:
    """Return the weights `(k, length, cells + 2)` of the nodes at every place."""
    places = tf.constant((np.arange(length) + 0.5) * cells / length, tf.float32)
    places = places + offsets[:, tf.newaxis]
    nodes = tf.range(cells + 2, dtype=tf.float32)
    return tf.maximum(1.0 - tf.abs(places[..., tf.newaxis] - nodes), 0.0)
