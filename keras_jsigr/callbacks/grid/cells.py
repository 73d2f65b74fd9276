"""Images and maps as the coloured cells of a grid."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from PIL.Image import Image

Array = npt.NDArray[Any]
SIDE = 128
# The share of a colour in the overlay where the map is largest.
_OPACITY = 0.85


def rgb(x: Array, input_range: tuple[float, float]) -> Array:
    """Bring images to colours.

    Args:
        x: Float `(N, H, W)` or `(N, H, W, C)`; other channel counts than 1 and 3 are
            shown as their mean.
        input_range: `(low, high)`: black and white.

    Returns:
        Float `(N, H, W, 3)` in 0..1.

    Example:
        >>> import numpy as np
        >>> from keras_jsigr.callbacks.grid.cells import rgb
        >>> rgb(np.full((1, 2, 2, 1), 255.0), (0.0, 255.0)).max()
        np.float64(1.0)
    """
    low, high = input_range
    x = np.clip((np.nan_to_num(x.astype(float)) - low) / (high - low), 0.0, 1.0)
    x = x[..., None] if x.ndim == 3 else x
    if x.shape[-1] != 3:
        x = x.mean(-1, keepdims=True).repeat(3, axis=-1)
    return x


def heat(shares: Array) -> Array:
    """Colour maps: black is zero, pale yellow one.

    The colours are those of matplotlib's `magma`: even in brightness, so that they
    can be told apart with any colour vision and in grey.

    Args:
        shares: Float `(N, H, W)` in 0..1.

    Returns:
        Float `(N, H, W, 3)` in 0..1.

    Example:
        >>> import numpy as np
        >>> from keras_jsigr.callbacks.grid.cells import heat
        >>> bool((heat(np.zeros((1, 2, 2))) < 0.02).all())
        True
    """
    from matplotlib import colormaps

    colors: Array = colormaps["magma"](np.nan_to_num(shares.astype(float)))[..., :3]
    return colors


def shares(maps: Array, top: float) -> Array:
    """Divide maps by the top of their scale and cut them off there.

    Args:
        maps: Float `(N, H, W)`, >= 0; what is not finite counts as zero.
        top: The top of the scale; 0 gives zeros.

    Returns:
        Float like `maps`, in 0..1.

    Example:
        >>> import numpy as np
        >>> from keras_jsigr.callbacks.grid.cells import shares
        >>> shares(np.array([[[1.0, 4.0]]]), 2.0).tolist()
        [[[0.5, 1.0]]]
    """
    maps = np.nan_to_num(maps.astype(float), posinf=0.0, neginf=0.0)
    divided: Array = maps / top if top > 0.0 else np.zeros_like(maps)
    return divided.clip(0.0, 1.0)


def column_top(maps: Array) -> float:
    """Choose the top of the scale that all maps of a column share.

    The 99th percentile of all their values: a few outliers do not blacken the rest.

    Args:
        maps: Float `(N, H, W)`, >= 0.

    Returns:
        The value; 0 for maps of zeros.

    Example:
        >>> import numpy as np
        >>> from keras_jsigr.callbacks.grid.cells import column_top
        >>> column_top(np.ones((2, 3, 3)))
        1.0
    """
    maps = np.nan_to_num(maps.astype(float), posinf=0.0, neginf=0.0)
    return float(np.quantile(maps, 0.99) or maps.max())


def overlay(images: Array, maps: Array, top: float) -> Array:
    """Lay coloured maps over the images in grey.

    Args:
        images: Float `(N, H, W, 3)` in 0..1.
        maps: Float `(N, H, W)`, >= 0.
        top: The value of the brightest and least transparent colour.

    Returns:
        Float `(N, H, W, 3)` in 0..1.

    Example:
        >>> import numpy as np
        >>> from keras_jsigr.callbacks.grid.cells import overlay
        >>> float(overlay(np.ones((1, 2, 2, 3)), np.zeros((1, 2, 2)), 1.0).max())
        0.6
    """
    # Darkened, and without the dark end of the colours, so that all of them stand out.
    grey = 0.6 * images.mean(-1, keepdims=True)
    seen = shares(maps, top)
    opacity = _OPACITY * np.sqrt(seen)[..., None]
    mixed: Array = grey * (1.0 - opacity) + heat(0.35 + 0.65 * seen) * opacity
    return mixed


def cell(colors: Array) -> Image:
    """Enlarge or shrink a picture so that its longer side is about 128 pixels.

    Small pictures are enlarged by a whole number, so that every pixel stays a square.

    Args:
        colors: Float `(H, W, 3)` in 0..1.

    Returns:
        An RGB image of Pillow.

    Example:
        >>> import numpy as np
        >>> from keras_jsigr.callbacks.grid.cells import cell
        >>> cell(np.zeros((28, 28, 3))).size, cell(np.zeros((480, 640, 3))).size
        ((112, 112), (128, 96))
    """
    from PIL import Image

    image = Image.fromarray(np.round(colors * 255.0).astype(np.uint8))
    longest = max(image.size)
    if longest <= SIDE:
        times = SIDE // longest
        size = (image.width * times, image.height * times)
        return image.resize(size, Image.Resampling.NEAREST)
    ratio = SIDE / longest
    size = (max(1, round(image.width * ratio)), max(1, round(image.height * ratio)))
    return image.resize(size, Image.Resampling.BOX)
