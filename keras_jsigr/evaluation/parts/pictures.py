"""Pictures of an example as PNG files in base64."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

# From black over red to pale yellow: brightness grows evenly, readable in grey too.
_RAMP = np.array(
    [[0, 0, 4], [87, 16, 110], [188, 55, 84], [249, 142, 9], [252, 255, 164]], float
)


def as_images(x: npt.NDArray[Any]) -> npt.NDArray[Any] | None:
    """Return examples in the shape of images, if that is what they are.

    Args:
        x: Float `(N, *S)`.

    Returns:
        Float `(N, H, W, 1)` or `(N, H, W, 3)`; `None` for anything else. Squares
        `(N, H, H)` are taken for grey images.

    Example:
        >>> import numpy as np
        >>> from keras_jsigr.evaluation.parts.pictures import as_images
        >>> as_images(np.zeros((5, 28, 28))).shape
        (5, 28, 28, 1)
        >>> as_images(np.zeros((5, 13)))
    """
    if x.ndim == 4 and x.shape[-1] in (1, 3):
        return x
    return x[..., None] if x.ndim == 3 and x.shape[1] == x.shape[2] else None


def image_picture(x: npt.NDArray[Any], input_range: tuple[float, float]) -> str:
    """Encode an image.

    Args:
        x: Float `(H, W, 1)` or `(H, W, 3)`.
        input_range: `(low, high)`: black and white.

    Returns:
        A PNG file in base64.

    Example:
        >>> import numpy as np
        >>> from keras_jsigr.evaluation.parts.pictures import image_picture
        >>> image_picture(np.zeros((2, 2, 1)), (0.0, 1.0))[:8]
        'iVBORw0K'
    """
    low, high = input_range
    return _png((x.astype(float) - low) / (high - low))


def difference_picture(difference: npt.NDArray[Any]) -> str:
    """Encode a perturbation: grey where nothing changed, amplified to full contrast.

    Args:
        difference: Float `(H, W, 1)` or `(H, W, 3)`.

    Returns:
        A PNG file in base64.

    Example:
        >>> import numpy as np
        >>> from keras_jsigr.evaluation.parts.pictures import difference_picture
        >>> difference_picture(np.zeros((2, 2, 3)))[:8]
        'iVBORw0K'
    """
    difference = difference.astype(float)
    largest = np.abs(difference).max()
    return _png(0.5 + 0.5 * difference / (largest if largest > 0 else 1.0))


def map_picture(values: npt.NDArray[Any]) -> str:
    """Encode a saliency map: dark is zero, bright its 99th percentile or more.

    Args:
        values: Float `(H, W)`, not negative.

    Returns:
        A PNG file in base64.

    Example:
        >>> import numpy as np
        >>> from keras_jsigr.evaluation.parts.pictures import map_picture
        >>> map_picture(np.eye(3))[:8]
        'iVBORw0K'
    """
    values = np.nan_to_num(values.astype(float), posinf=0.0, neginf=0.0)
    top = np.quantile(values, 0.99) or values.max()
    share = np.clip(values / (top if top > 0 else 1.0), 0.0, 1.0)
    stops = np.linspace(0.0, 1.0, len(_RAMP))
    channels = [np.interp(share, stops, _RAMP[:, c]) / 255.0 for c in range(3)]
    return _png(np.stack(channels, axis=-1))


def _png(x: npt.NDArray[Any]) -> str:
    bytes_ = np.clip(np.round(x * 255.0), 0, 255).astype(np.uint8)
    return base64.b64encode(tf.io.encode_png(bytes_).numpy()).decode("ascii")
