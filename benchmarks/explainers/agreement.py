"""Whether two libraries give the same maps, and by which conventions they differ."""

from __future__ import annotations

from typing import Any

import numpy as np

from explainers.settings import Settings

# Equal beside the rounding of float32, as a share of the largest value.
TOLERANCE = 1e-4

# Why values differ where they do. What is not named here must be equal, once a sum over
# the patches that cover a place is made a mean as ours is.
DIFFERENT: dict[tuple[str, str], str] = {
    ("SmoothGrad", "Xplique"): "other draws of the noise",
    ("SmoothGrad", "tf-keras-vis"): "other draws, noise by each image's range",
    ("SmoothGrad", "PAIR saliency"): "other draws of the noise",
    ("integrated gradients", "PAIR saliency"): (
        "both ends of the path weigh as much as the points between"
    ),
    ("Grad-CAM", "Xplique"): "resized by cubic splines, ours linearly",
    ("Grad-CAM", "tf-keras-vis"): "resized from corner to corner, not by pixel areas",
    ("Grad-CAM", "PAIR saliency"): "largest value one, other values at the borders",
    ("RISE", "Xplique"): "other masks: a stretched grid, one offset for all of a batch",
}


def agreement(
    method: str,
    library: str,
    ours: np.ndarray,
    theirs: np.ndarray,
    settings: Settings,
) -> dict[str, Any]:
    """Compare the maps of the same images.

    Args:
        method: Such as `"occlusion"`.
        library: The name of the other library.
        ours: Maps `(N, H, W)` of keras_jsigr.
        theirs: Maps `(N, H, W)` of the other library.
        settings: Of the method.

    Returns:
        `"difference"`, the largest one as a share of our largest value, and
        `"correlation"`, the mean over the images; `"convention"` where they differ.
    """
    theirs = as_ours(method, library, theirs, settings)
    found: dict[str, Any] = {
        "difference": float(f"{difference(ours, theirs):.2e}"),
        "correlation": round(correlation(ours, theirs), 4),
    }
    if (method, library) in DIFFERENT:
        found["convention"] = DIFFERENT[method, library]
    return found


def as_ours(method: str, library: str, theirs: np.ndarray, settings: Settings) -> np.ndarray:
    """Turn sums over patches into means, the only conversion needed.

    Args:
        method: Such as `"occlusion"`.
        library: The name of the other library; none gives means.
        theirs: Maps `(N, H, W)`.
        settings: Of the method.

    Returns:
        Maps `(N, H, W)`.
    """
    if not method.startswith("occlusion"):
        return theirs
    stride = 1 if method.endswith("stride 1") else settings.stride
    covers = [_covers(side, settings.patch, stride) for side in theirs.shape[1:]]
    return theirs / np.maximum(np.multiply.outer(*covers), 1.0)


def _covers(side: int, patch: int, stride: int) -> np.ndarray:
    """Count the patches over each row or column, `(side,)`."""
    cover = np.zeros(side)
    for start in range(0, side - patch + 1, stride):
        cover[start : start + patch] += 1.0
    return cover


def difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Return the largest difference as a share of our largest value."""
    return float(np.abs(ours - theirs).max() / np.abs(ours).max())


def correlation(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Return the mean correlation over the images, without maps of one value."""
    flat = [maps.reshape(len(maps), -1) for maps in (ours, theirs)]
    a, b = (rows - rows.mean(axis=1, keepdims=True) for rows in flat)
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    cosines = np.sum(a * b, axis=1)[lengths > 0.0] / lengths[lengths > 0.0]
    return float(cosines.mean()) if len(cosines) else 0.0
