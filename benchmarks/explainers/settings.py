"""What a saliency method computes: the same for every library."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

# A prepared method: `run(x, y) -> maps`, NumPy arrays, images `(N, H, W, 1)` in 0..1,
# labels `(N,)`, maps `(N, H, W)` of the logit of the label.
Run = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of one method, as far as it has them.

    Attributes:
        samples: Noisy copies of SmoothGrad.
        noise: Standard deviation of the noise, in input units.
        steps: Points of integrated gradients, both ends among them.
        patch: Side of the patch of occlusion, in pixels.
        stride: Distance of two patches.
        masks: Number of masks of RISE.
        grid: Cells of a mask along a side.
        keep: Probability that a node of the grid is kept.
        batch_size: Images at once.
        rows: Model inputs at once where Xplique makes many of an image: it is about as
            fast as it gets from 512 on.
        seed: Of our draws; the others draw from the global generators.
    """

    samples: int = 25
    noise: float = 0.15
    steps: int = 50
    patch: int = 7
    stride: int = 3
    masks: int = 500
    grid: int = 7
    keep: float = 0.5
    batch_size: int = 128
    rows: int = 1280
    seed: int = 0


Make = Callable[[Any, Settings], Run]


def feature_layer(model: Any) -> str:
    """Name the layer that Grad-CAM looks at: the last convolution."""
    kind = keras.layers.Conv2D
    return [layer.name for layer in model.layers if isinstance(layer, kind)][-1]


def one_by_one(run: Callable[[np.ndarray, int], np.ndarray]) -> Run:
    """Call a function that explains a single image for each of many.

    Args:
        run: Takes an image `(H, W, 1)` and its label, returns `(H, W)` or `(H, W, 1)`.

    Returns:
        The same for any number of images.
    """

    def every(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        maps = [run(image, int(label)) for image, label in zip(x, y, strict=True)]
        return np.stack(maps).reshape(x.shape[:3])

    return every
