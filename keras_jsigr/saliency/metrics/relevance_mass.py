"""How much of a map lies on the object."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from keras_jsigr.saliency.metrics.box_pixels import box_pixels, check_image_maps


def relevance_mass(maps: Any, boxes: Any) -> tf.Tensor:
    """Compute the share of the sum of each map that lies in its box.

    `sum_{i in box} |S_i| / sum_i |S_i|`. A map of zeros has none of it there: 0. Chance
    is the share of the image that the box covers.

    Args:
        maps: Float `(B, H, W)`, signed or not.
        boxes: Real `(B, 4)`, `[x0, y0, x1, y1]` in pixels, `x1` and `y1` excluded.

    Returns:
        Float32 `(B,)`, 0 to 1; larger is better.

    Raises:
        ValueError: If maps or boxes have another shape.

    Reference:
        arXiv 2003.07258.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.saliency.metrics.relevance_mass import relevance_mass
        >>> maps = tf.constant([[[0.0, 3.0], [1.0, 0.0]]])
        >>> relevance_mass(maps, [[1, 0, 2, 1]]).numpy().tolist()
        [0.75]
    """
    maps = tf.abs(check_image_maps(maps))
    maps = tf.math.divide_no_nan(maps, tf.reduce_max(maps, axis=[1, 2], keepdims=True))
    inside = box_pixels(boxes, tuple(maps.shape[1:]))
    part = tf.reduce_sum(tf.where(inside, maps, tf.zeros_like(maps)), axis=[1, 2])
    return tf.math.divide_no_nan(part, tf.reduce_sum(maps, axis=[1, 2]))
