"""Whether a map points at a box: pointing game and relevance mass."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from keras_jsigr.saliency.metrics.similarity import is_constant, map_rows


def _maps_and_boxes(maps: Any, boxes: Any, margin: float = 0.0) -> tuple[Any, Any]:
    """Return maps as float32, and where they are inside the boxes, both `(B, H, W)`."""
    maps, boxes = tf.cast(maps, tf.float32), tf.cast(boxes, tf.float32)
    if maps.shape.rank != 3:
        raise ValueError(
            f"Got maps of shape {tuple(maps.shape)}, expected (B, H, W). Boxes are for "
            "maps of images."
        )
    if boxes.shape.rank != 2 or boxes.shape[-1] != 4:
        raise ValueError(
            f"Got boxes of shape {tuple(boxes.shape)}, expected (B, 4): one box "
            "[x0, y0, x1, y1] in pixels per example."
        )
    x0, y0, x1, y1 = tf.unstack(boxes[:, :, tf.newaxis], axis=1)
    rows, columns = (tf.range(float(side)) for side in maps.shape[1:])
    vertical = (rows >= y0 - margin) & (rows < y1 + margin)
    horizontal = (columns >= x0 - margin) & (columns < x1 + margin)
    return maps, vertical[:, :, tf.newaxis] & horizontal[:, tf.newaxis, :]


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
        >>> from keras_jsigr.saliency.metrics import pointing_game
        >>> maps = [[[0.0, 2.0], [1.0, 0.0]]]
        >>> pointing_game(maps, [[1, 0, 2, 1]]).numpy().tolist()
        [1.0]
    """
    maps, inside = _maps_and_boxes(maps, boxes, margin)
    rows = map_rows(maps)
    hit = tf.gather(map_rows(inside), tf.argmax(rows, axis=1), axis=1, batch_dims=1)
    return tf.where(is_constant(rows), tf.zeros_like(hit), hit)


def relevance_mass(maps: Any, boxes: Any) -> tf.Tensor:
    """Compute the share of the sum of each map that lies in its box.

    `sum_{i in box} |S_i| / sum_i |S_i|`, 0 for a map of zeros; chance is the share of
    the image that the box covers. Arguments are those of `pointing_game`.

    Returns:
        Float32 `(B,)`, 0 to 1; larger is better.

    Reference:
        arXiv 2003.07258.

    Example:
        >>> from keras_jsigr.saliency.metrics import relevance_mass
        >>> maps = [[[0.0, 3.0], [1.0, 0.0]]]
        >>> relevance_mass(maps, [[1, 0, 2, 1]]).numpy().tolist()
        [0.75]
    """
    maps, inside = _maps_and_boxes(tf.abs(maps), boxes)
    maps = tf.math.divide_no_nan(maps, tf.reduce_max(maps, axis=[1, 2], keepdims=True))
    part = tf.reduce_sum(tf.where(inside, maps, tf.zeros_like(maps)), axis=[1, 2])
    return tf.math.divide_no_nan(part, tf.reduce_sum(maps, axis=[1, 2]))
