"""The fixed examples that a grid shows, checked before any training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

MOST = 32


@dataclass(frozen=True)
class Probe:
    """Hold the examples of a grid.

    Attributes:
        x: Float32 `(N, H, W)` or `(N, H, W, C)`.
        y: Labels as they were given, or `None`.
    """

    x: npt.NDArray[np.float32]
    y: npt.NDArray[Any] | None


def check_probe(x: Any, y: Any = None) -> Probe:
    """Check the examples of a grid: a few images, and a label for each or none.

    Args:
        x: Images, float or integer `(N, H, W)` (grey) or `(N, H, W, C)`, N up to 32.
        y: Labels `(N,)`, `(N, 1)` or one-hot `(N, K)`, or `None`.

    Returns:
        The examples.

    Raises:
        ValueError: If `x` holds no images, too many, or values that are not finite, or
            if there are more or fewer labels.

    Example:
        >>> import numpy as np
        >>> from keras_jsigr.callbacks.grid.probe import check_probe
        >>> check_probe(np.zeros((8, 28, 28, 1), "uint8"), np.zeros(8)).x.dtype.name
        'float32'
    """
    images = np.asarray(x)
    if images.ndim not in (3, 4) or images.dtype.kind not in "fiub":
        raise ValueError(
            f"A saliency grid shows images: got shape {images.shape} of dtype "
            f"{images.dtype}, expected (N, H, W) or (N, H, W, C) numbers. For tables "
            "and sequences compute `keras_jsigr.gradient_map` in a callback of yours."
        )
    if not 1 <= len(images) <= MOST or 0 in images.shape:
        raise ValueError(
            f"Got {len(images)} images of shape {images.shape[1:]}, expected 1 to "
            f"{MOST}: each is a row of the grid. Pass a slice such as x[:8]."
        )
    images = images.astype(np.float32)
    if not np.isfinite(images).all():
        raise ValueError(
            "The images of the grid contain NaN or infinity, expected finite values. "
            "Find them with np.isfinite(x)."
        )
    labels = None if y is None else np.asarray(y)
    if labels is not None and (labels.ndim == 0 or len(labels) != len(images)):
        raise ValueError(
            f"Got {len(images)} images and labels of shape {labels.shape}, expected "
            "one label per image. Select the same rows of both."
        )
    return Probe(images, labels)
