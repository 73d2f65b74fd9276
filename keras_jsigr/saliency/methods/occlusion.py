"""Occlusion by a moving patch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from keras_jsigr.core import settings
from keras_jsigr.saliency.layout import Layout
from keras_jsigr.saliency.methods.masked_mean import masked_mean
from keras_jsigr.saliency.methods.masking import MaskingMethod, ScoreOf
from keras_jsigr.saliency.methods.replacement import replacement

# Without a patch size: this many patches along each side of an image.
_PER_SIDE = 7


@dataclass(frozen=True, kw_only=True)
class Occlusion(MaskingMethod):
    """Tell what the score loses where a patch covers the input.

    `s(x) - mean s(x_k)`, the mean over the patches k that cover a place, signed. A
    patch is a square of an image, a stretch of a sequence, or neighbouring features.
    One forward pass per position, by default 49 to 100 of them. The last patch of a row
    is flush with the end, so every place is covered.

    Args:
        patch: Side in pixels, steps or features, or `(rows, columns)`. Default: a
            seventh of each side of an image, a 49th of anything else.
        stride: Distance of the positions, or a pair, at most the patch; default: the
            patch.
        baseline: What the patch shows: a number, `"zero"`, `"blur"` or `"mean"`.
        score: `"prob"`, `"log_prob"`, `"margin"` or `"logit"`.
        chunk: Examples that the model sees at once, see `sum_in_chunks`.
        kind: `"softmax"` (exclusive classes) or `"sigmoid"` (independent ones);
            `None` asks the head and the loss of a Keras model, and takes a callable
            for the first.
        layout: What the axes mean where the rank would mislead, see `resolve_layout`.

    Raises:
        ValueError: If a setting is out of range.

    Reference:
        arXiv 1311.2901, section 4.2.

    Example:
        >>> import numpy as np
        >>> from keras_jsigr.saliency import explain
        >>> x = np.array([[3.0, 1.0]])
        >>> explain(lambda x: 2.0 * x, x, method="occlusion", score="logit")
        array([[6., 0.]], dtype=float32)
    """

    patch: int | Sequence[int] | None = None
    stride: int | Sequence[int] | None = None

    def __post_init__(self) -> None:
        """Check the settings."""
        super().__post_init__()
        for name in ("patch", "stride"):
            value = getattr(self, name)
            for side in () if value is None else np.atleast_1d(value).tolist():
                settings.count(name, side)

    def check(self, map_shape: tuple[int, ...]) -> None:
        """Refuse a patch that does not fit; see `MaskingMethod`."""
        self._positions(map_shape)

    def maps(
        self,
        score_of: ScoreOf,
        x: tf.Tensor,
        layout: Layout,
        map_shape: tuple[int, ...],
    ) -> tf.Tensor:
        """Compute the losses; see `MaskingMethod`."""
        patch, positions = self._positions(map_shape)
        corners = tf.constant(positions, tf.int32)

        def masks_of(first: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
            return _patches(corners[first : first + size], patch, map_shape)

        covered = masked_mean(
            score_of,
            x,
            replacement(x, self.baseline, layout) - x,
            len(positions),
            masks_of,
            map_shape,
            self.chunk,
        )
        whole = score_of(x, tf.constant(1))
        return tf.reshape(whole, (-1, *[1] * len(map_shape))) - covered

    def _positions(
        self, map_shape: tuple[int, ...]
    ) -> tuple[tuple[int, ...], npt.NDArray[np.int64]]:
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
                f"Got stride {stride} beside patch {patch}: no patch would cover what "
                "lies between. Use a stride of at most the patch."
            )
        starts = [
            sorted({*range(0, side - p + 1, s), side - p})
            for side, p, s in zip(map_shape, patch, stride, strict=True)
        ]
        return patch, np.array(list(product(*starts)))


def _sides(name: str, value: Any, default: tuple[int, ...]) -> tuple[int, ...]:
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


def _patches(
    corners: tf.Tensor, patch: tuple[int, ...], map_shape: tuple[int, ...]
) -> tf.Tensor:
    """Return masks `(K, *map_shape)`, one inside the patches with these corners."""
    masks = tf.ones((tf.shape(corners)[0], *[1] * len(map_shape)))
    for axis, (side, length) in enumerate(zip(patch, map_shape, strict=True)):
        start = corners[:, axis, tf.newaxis]
        inside = (tf.range(length) >= start) & (tf.range(length) < start + side)
        shape = [-1, *(length if a == axis else 1 for a in range(len(map_shape)))]
        masks *= tf.reshape(tf.cast(inside, tf.float32), shape)
    return masks
