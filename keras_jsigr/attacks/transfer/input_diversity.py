"""Diverse inputs: show the model a randomly shrunk and shifted image."""

from __future__ import annotations

import tensorflow as tf

from keras_jsigr.attacks.calls.images import image_sides
from keras_jsigr.attacks.search.seeds import ALGORITHM, fold_in


def input_diversity(
    x: tf.Tensor,
    seed: tf.Tensor,
    *,
    probability: float = 0.5,
    scale: float = 0.9,
    fill: float = 0.0,
) -> tf.Tensor:
    """Shrink each image with some probability and put it anywhere on an empty canvas.

    Per image, with `probability`: the height is uniform on the integers from
    `floor(scale * H)` to `H - 1`, the width follows it, the image is resized bilinearly
    (as by `tf.image.resize`), and the frame left over is split at random and filled.

    Args:
        x: Float32 or float64 `(B, H, W, C)`.
        seed: Int32 `(2,)`.
        probability: Of changing an image, 0 to 1.
        scale: The smallest size as a share of the side, above 0, below 1.
        fill: Value of the frame, in input units.

    Returns:
        Like `x`, and linear in it for a given seed.

    Raises:
        ValueError: If `x` are no images.

    Reference:
        arXiv 1803.06978. The authors enlarge the canvas; here the size that the model
        takes is kept and the image shrinks, as is common.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.attacks.transfer.input_diversity import input_diversity
        >>> x = tf.ones((1, 8, 8, 1))
        >>> y = input_diversity(x, tf.constant([0, 1]), probability=1.0)
        >>> int(tf.reduce_sum(y))  # 7 x 7 of 8 x 8 pixels
        49
    """
    height, width = image_sides(x.shape, "Input diversity")
    examples = tf.shape(x)[:1]

    def uniform(stream: int) -> tf.Tensor:
        return tf.random.stateless_uniform(
            examples, fold_in(seed, stream), dtype=x.dtype, alg=ALGORITHM
        )

    apply, size = uniform(0) < probability, uniform(1)
    rows = _shrink(height, scale, apply, size, uniform(2))
    columns = _shrink(width, scale, apply, size, uniform(3))
    flat = tf.reshape(x, (-1, height, width * x.shape[3]))
    y = tf.reshape(rows @ flat, tf.shape(x))
    y = columns[:, tf.newaxis] @ y
    if fill != 0.0:
        # Each weight row sums to one inside the image and to zero in the frame.
        inside = (tf.reduce_sum(m, axis=2) for m in (rows, columns))
        y += fill * (1.0 - tf.einsum("bi,bj->bij", *inside)[..., tf.newaxis])
    return tf.ensure_shape(y, x.shape)


def _shrink(
    side: int, scale: float, apply: tf.Tensor, size: tf.Tensor, shift: tf.Tensor
) -> tf.Tensor:
    """Draw a size and a place, and return the matrices `(B, side, side)` of the resize.

    One matrix per image and axis: any mixture of sizes in one product.
    """
    dtype = size.dtype
    smallest = max(1, int(scale * side))
    kept = smallest + tf.floor(size * max(side - smallest, 0))
    kept = tf.where(apply, kept, tf.cast(side, dtype))
    offset = tf.floor(shift * (side - kept + 1.0))
    pixel = tf.range(side, dtype=dtype)
    place = pixel - offset[:, tf.newaxis]
    kept = kept[:, tf.newaxis]
    # Half-pixel centres; outside the outermost centres the border repeats.
    source = tf.clip_by_value((place + 0.5) * (side / kept) - 0.5, 0.0, side - 1.0)
    weights = tf.nn.relu(1.0 - tf.abs(source[..., tf.newaxis] - pixel))
    inside = (place >= 0.0) & (place < kept)
    return tf.where(inside[..., tf.newaxis], weights, 0.0)
