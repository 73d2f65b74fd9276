"""Write adversarial images to files of 8 bits."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from keras_jsigr.attacks.base import check_levels
from keras_jsigr.core import arguments
from keras_jsigr.core.files import local_path, write_whole


def save_images(
    folder: str | os.PathLike[str],
    x: Any,
    input_range: tuple[float, float] = (0.0, 1.0),
    *,
    names: Sequence[str] | None = None,
) -> list[Path]:
    """Write images as PNG files that hold exactly the values given.

    What was found with `levels=256` fools the model as a file too; of any other array
    the files would be rounded, and are refused.

    Args:
        folder: Where to; it is made.
        x: Float images `(N, H, W, C)` of 1 to 4 channels, multiples of the range / 255.
        input_range: `(low, high)` of the images: black and white.
        names: A file name per image, without suffix, such as `"cat/007"`; numbers without.

    Returns:
        The paths of the files.

    Raises:
        ValueError: If `x` is no such array, or the names do not fit.

    Example:
        >>> import tempfile, numpy as np, keras_jsigr as kj
        >>> x, net = np.full((1, 2, 2, 1), 51 / 255), lambda x: x[:, 0, :, 0]
        >>> x_adv = kj.attacks.PGD(0.1, levels=256)(net, x, [0])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     [path.name for path in kj.attacks.save_images(folder, x_adv)]
        ['0.png']
    """
    images = np.asarray(x)
    low, high = arguments.interval("input_range", input_range)
    if images.ndim != 4 or images.shape[-1] not in (1, 2, 3, 4) or images.dtype.kind != "f":
        raise ValueError(
            f"`x`: got shape {images.shape} and dtype {images.dtype}, expected float images "
            "(N, H, W, C) of 1 to 4 channels. Select the channels to show."
        )
    if not (images >= low - 1e-3 * (high - low)).all() or images.max() > high + 1e-3 * (high - low):
        raise ValueError(
            f"`x` leaves the input range: got values from {images.min():g} to {images.max():g}, "
            f"expected ({low:g}, {high:g}). Pass their `input_range`."
        )
    check_levels(images, (low, high), 256)
    files = [str(number) for number in range(len(images))] if names is None else list(names)
    root = local_path(folder).resolve()
    paths = [(root / f"{name}.png").resolve() for name in files]
    if len(set(paths)) != len(images) or not all(path.is_relative_to(root) for path in paths):
        raise ValueError(
            f"`names`: got {len(set(files))} different ones for {len(images)} images, expected one "
            f"each, all inside of '{root}'. Leave them out for numbers."
        )
    pixels = np.round((images.astype(np.float64) - low) * (255.0 / (high - low))).astype(np.uint8)
    for path, picture in zip(paths, pixels, strict=True):
        write_whole(path, tf.io.encode_png(picture).numpy())
    return paths
