"""Where a patch does the most harm, and the pixels it covers."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from keras_jsigr.attacks.search.seeds import ALGORITHM, fold_in


def patch_side(
    size: int | float, corner: tuple[int, int], height: int, width: int
) -> int:
    """Return the side of a patch on an image, in pixels.

    Args:
        size: An int in pixels, or a float as a share of the shorter side.
        corner: Row and column of the top left pixel.
        height: Of the image in pixels.
        width: Of the image in pixels.

    Returns:
        The side, >= 1.

    Raises:
        ValueError: If the patch does not fit.

    Example:
        >>> from keras_jsigr.attacks.regions.patch_place import patch_side
        >>> patch_side(0.2, (0, 0), 28, 32)
        6
    """
    side = size
    if isinstance(side, float):
        side = max(1, int(side * min(height, width) + 0.5))
    if corner[0] + side > height or corner[1] + side > width:
        raise ValueError(
            f"The patch does not fit: got side {side} at {corner} on {height} x "
            f"{width} pixels, expected it inside. Choose a smaller `size`, or a "
            "`location` further up or left."
        )
    return side


def random_corner(seed: tf.Tensor, last: tuple[int, int], examples: Any) -> tf.Tensor:
    """Draw the top left pixels of patches, each place equally likely.

    Args:
        seed: Int32 `(2,)`.
        last: The largest row and column.
        examples: Their number, int or int32 scalar.

    Returns:
        Int32 `(B, 2)`.

    Example:
        >>> from keras_jsigr.attacks.regions.patch_place import random_corner
        >>> random_corner((0, 0), (0, 0), 1).numpy().tolist()
        [[0, 0]]
    """

    def draw(axis: int) -> tf.Tensor:
        stream = fold_in(seed, axis)
        return tf.random.stateless_uniform(
            [examples], stream, 0, last[axis] + 1, tf.int32, alg=ALGORITHM
        )

    return tf.stack([draw(0), draw(1)], axis=1)


def patch_gain(
    gradient: tf.Tensor,
    x: tf.Tensor,
    input_range: tuple[float, float],
    region: tf.Tensor | None = None,
) -> tf.Tensor:
    """Compute what each pixel adds to a linear loss if it may take any value.

    `sum_channels max(g (high - x), g (low - x))`: the mass of the gradient, times the
    room that is left in its direction.

    Args:
        gradient: Float32 or float64 `(B, H, W, C)`.
        x: Like `gradient`, in the range.
        input_range: `(low, high)` in input units.
        region: Like `gradient`, zero where the input must not change.

    Returns:
        Float `(B, H, W)`, >= 0.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.attacks.regions.patch_place import patch_gain
        >>> gradient, x = tf.fill((1, 1, 1, 1), -2.0), tf.fill((1, 1, 1, 1), 0.75)
        >>> patch_gain(gradient, x, (0.0, 1.0)).numpy().tolist()
        [[[1.5]]]
    """
    low, high = input_range
    gain = tf.maximum(gradient * (high - x), gradient * (low - x))
    if region is not None:
        gain *= region
    return tf.reduce_sum(gain, axis=3)


def best_corner(gain: tf.Tensor, side: int) -> tf.Tensor:
    """Find the square window of the largest sum.

    Args:
        gain: Float `(B, H, W)`.
        side: Of the window in pixels, at most `H` and `W`.

    Returns:
        Int32 `(B, 2)`: row and column of the top left pixel; the first of equal ones.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.attacks.regions.patch_place import best_corner
        >>> best_corner(tf.constant([[[0.0, 5.0, 1.0], [0.0, 0.0, 9.0]]]), 2).numpy()
        array([[0, 1]], dtype=int32)
    """
    sums = tf.nn.avg_pool2d(gain[..., tf.newaxis], side, 1, "VALID")
    columns = sums.shape[2]
    flat = tf.argmax(tf.reshape(sums, (-1, sums.shape[1] * columns)), 1, tf.int32)
    return tf.stack([flat // columns, flat % columns], axis=1)


def patch_region(corners: Any, side: int, like: tf.Tensor) -> tf.Tensor:
    """Mark the pixels of a square patch.

    Args:
        corners: Int32 `(B, 2)`: row and column of the top left pixel.
        side: Of the patch in pixels.
        like: Float `(B, H, W, C)`, the images.

    Returns:
        Like `like`: one on the patch, zero elsewhere.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.attacks.regions.patch_place import patch_region
        >>> region = patch_region(tf.constant([[0, 1]]), 1, tf.zeros((1, 1, 3, 1)))
        >>> tf.reshape(region, (-1,)).numpy().tolist()
        [0.0, 1.0, 0.0]
    """

    def covered(axis: int) -> tf.Tensor:
        first = corners[:, axis, tf.newaxis]
        place = tf.range(like.shape[1 + axis])
        return tf.cast((place >= first) & (place < first + side), like.dtype)

    rows, columns = covered(0), covered(1)
    square = rows[:, :, tf.newaxis, tf.newaxis] * columns[:, tf.newaxis, :, tf.newaxis]
    return square * tf.ones_like(like)
