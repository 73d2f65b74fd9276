"""RISE: random masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from keras_jsigr.core import settings
from keras_jsigr.saliency.layout import Layout
from keras_jsigr.saliency.methods.masked_mean import MasksFn, masked_mean
from keras_jsigr.saliency.methods.masking import MaskingMethod, ScoreOf
from keras_jsigr.saliency.methods.replacement import replacement


@dataclass(frozen=True, kw_only=True)
class RISE(MaskingMethod):
    """Average the score over random masks that keep a place.

    `sum_k m_k s(A + m_k (x - A)) / sum_k m_k`. A mask is bilinear between random zeros
    and ones on a grid of cells, at a random offset: along both axes of an image, along
    time for a sequence; features are kept or not one by one. Every example meets the
    same masks, so a map depends neither on its batch nor on `chunk`. `samples` forward
    passes.

    Args:
        samples: Number of masks.
        grid: Cells per side, or a pair; unused for features.
        keep: Probability that a node of the grid is one.
        seed: Of the masks.
        baseline: `A`: a number, `"zero"`, `"blur"` or `"mean"`.
        score: `"prob"`, `"log_prob"`, `"margin"` or `"logit"`.
        chunk: Examples that the model sees at once, see `sum_in_chunks`.
        kind: `"softmax"` (exclusive classes) or `"sigmoid"` (independent ones);
            `None` asks the head and the loss of a Keras model, and takes a callable
            for the first.
        layout: What the axes mean where the rank would mislead, see `resolve_layout`.

    Raises:
        ValueError: If a setting is out of range.

    Reference:
        arXiv 1806.07421, equation 6, with the sum of the masks for its expectation.

    Example:
        >>> import numpy as np
        >>> from keras_jsigr.saliency import explain
        >>> maps = explain(lambda x: 9.0 * x, np.eye(2), method="rise", samples=99)
        >>> maps.argmax(axis=1).tolist()
        [0, 1]
    """

    samples: int = 1000
    grid: int | Sequence[int] = 7
    keep: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the settings."""
        super().__post_init__()
        settings.count("samples", self.samples)
        for cells in np.atleast_1d(self.grid).tolist():
            settings.count("grid", cells)
        settings.share("keep", self.keep)
        settings.count("seed", self.seed, minimum=0)

    def check(self, map_shape: tuple[int, ...]) -> None:
        """Refuse a grid that does not fit; see `MaskingMethod`."""
        if np.size(self.grid) not in (1, len(map_shape)):
            raise ValueError(
                f"Got grid {self.grid!r} for maps of {len(map_shape)} axes, expected "
                "one number or one per axis. Use one number."
            )

    def maps(
        self,
        score_of: ScoreOf,
        x: tf.Tensor,
        layout: Layout,
        map_shape: tuple[int, ...],
    ) -> tf.Tensor:
        """Compute the mean scores; see `MaskingMethod`."""
        base = replacement(x, self.baseline, layout)
        return masked_mean(
            score_of,
            base,
            x - base,
            self.samples,
            self.masks_of(layout, map_shape),
            map_shape,
            self.chunk,
        )

    def masks_of(self, layout: Layout, map_shape: tuple[int, ...]) -> MasksFn:
        """Return the function that makes groups of masks.

        Args:
            layout: What the axes of an example mean.
            map_shape: Shape of a mask.

        Returns:
            A function from the first number and the size of a group to masks.
        """
        cells = np.broadcast_to(np.atleast_1d(self.grid), len(map_shape)).tolist()
        # The offset is up to one cell: one node more than cells have borders.
        nodes = map_shape if layout == "features" else tuple(c + 2 for c in cells)
        lots = tf.random.stateless_uniform(
            (self.samples, *nodes), [0, self.seed], alg="philox"
        )
        kept = tf.cast(lots < self.keep, tf.float32)
        offsets = tf.random.stateless_uniform(
            (self.samples, len(map_shape)), [1, self.seed], alg="philox"
        )

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
