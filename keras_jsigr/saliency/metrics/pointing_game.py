"""Whether the most salient pixel lies on the object."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from keras_jsigr.saliency.metrics.box_pixels import box_pixels, check_image_maps
from keras_jsigr.saliency.metrics.map_rows import is_constant, map_rows


def pointing_game(maps: Any, boxes: Any, *, margin: float = 0.0) -> tf.Tensor:
    """Tell whether the maximum of each map lies in its box.

    `1[argmax S in box]`; of equal maxima the first counts. A constant map points
    nowhere: 0. Chance is the share of the image that the box covers.

    Args:
        maps: Float `(B, H, W)`.
        boxes: Real `(B, 4)`, `[x0, y0, x1, y1]` in pixels, `x1` and `y1` excluded.
        margin: How far beside the box still counts, in pixels (15 on photographs).

    Returns:
        Float32 `(B,)`, 0 or 1; larger is better.

    Raises:
        ValueError: If maps or boxes have another shape.

    Reference:
        arXiv 1608.00507.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.saliency.metrics.pointing_game import pointing_game
        >>> maps = tf.constant([[[0.0, 2.0], [1.0, 0.0]]])
        >>> pointing_game(maps, [[1, 0, 2, 1]]).numpy().tolist()
        [1.0]
    """
    maps = check_image_maps(maps)
    inside = box_pixels(boxes, tuple(maps.shape[1:]), margin)
    rows = map_rows(maps)
    hit = tf.gather(map_rows(inside), tf.argmax(rows, axis=1), axis=1, batch_dims=1)
    return tf.where(is_constant(rows), tf.zeros_like(hit), hit)
