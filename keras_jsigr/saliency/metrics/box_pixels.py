"""The pixels of a box."""

from __future__ import annotations

from typing import Any

import tensorflow as tf


def box_pixels(boxes: Any, shape: tuple[int, int], margin: float = 0.0) -> tf.Tensor:
    """Mark the pixels inside boxes.

    Pixel `(row, column)` is inside `[x0, y0, x1, y1]` if `x0 <= column < x1` and
    `y0 <= row < y1`, the box widened by `margin` on all sides.

    Args:
        boxes: Real `(B, 4)`, corners in pixels; columns are x, rows are y.
        shape: `(H, W)` of the map.
        margin: In pixels, >= 0.

    Returns:
        Bool `(B, H, W)`.

    Raises:
        ValueError: If there are not four numbers per box.

    Example:
        >>> from keras_jsigr.saliency.metrics.box_pixels import box_pixels
        >>> box_pixels([[1, 0, 3, 1]], (2, 3)).numpy().astype(int).tolist()
        [[[0, 1, 1], [0, 0, 0]]]
    """
    boxes = tf.cast(boxes, tf.float32)
    if boxes.shape.rank != 2 or boxes.shape[-1] != 4:
        raise ValueError(
            f"Got boxes of shape {tuple(boxes.shape)}, expected (B, 4): one box "
            "[x0, y0, x1, y1] in pixels per example."
        )
    x0, y0, x1, y1 = tf.unstack(boxes[:, :, tf.newaxis], axis=1)
    rows, columns = tf.range(float(shape[0])), tf.range(float(shape[1]))
    vertical = (rows >= y0 - margin) & (rows < y1 + margin)
    horizontal = (columns >= x0 - margin) & (columns < x1 + margin)
    return vertical[:, :, tf.newaxis] & horizontal[:, tf.newaxis, :]


def check_image_maps(maps: tf.Tensor) -> tf.Tensor:
    """Return maps as float32 if they are images.

    Args:
        maps: Real `(B, H, W)`.

    Returns:
        Float32 `(B, H, W)`.

    Raises:
        ValueError: If they have another rank.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.saliency.metrics.box_pixels import check_image_maps
        >>> check_image_maps(tf.ones((1, 2, 3), tf.int32)).dtype.name
        'float32'
    """
    maps = tf.cast(maps, tf.float32)
    if maps.shape.rank != 3:
        raise ValueError(
            f"Got maps of shape {tuple(maps.shape)}, expected (B, H, W). Boxes are for "
            "maps of images."
        )
    return maps
