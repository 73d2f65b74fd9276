"""Random windows of images, one per example, without a loop over the examples."""

from __future__ import annotations

import tensorflow as tf


def as_image(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Find rows, columns and channels in the shape of one example.

    Args:
        shape: `(H, W, D)` of images, `(T, D)` of sequences, whose windows are spans
            of time, or `(F,)` of features, whose windows are runs of neighbours.

    Returns:
        `(H, W, D)`; a single column for sequences and features.

    Raises:
        ValueError: If there are more axes.

    Example:
        >>> from keras_jsigr.attacks.queries.square_windows import as_image
        >>> as_image((28, 28, 1)), as_image((100, 6)), as_image((30,))
        ((28, 28, 1), (100, 1, 6), (30, 1, 1))
    """
    if len(shape) == 3:
        return shape[0], shape[1], shape[2]
    if len(shape) == 2:
        return shape[0], 1, shape[1]
    if len(shape) == 1:
        return shape[0], 1, 1
    raise ValueError(
        f"The windows of the Square attack are two-dimensional: got examples of shape "
        f"{shape}, expected (H, W, D), (T, D) or (F,). Attack a callable that reshapes "
        "to what the model takes."
    )


def place_windows(u: tf.Tensor, sides: tf.Tensor, extent: tuple[int, int]) -> tf.Tensor:
    """Place one window per example, all positions inside the image equally likely.

    Args:
        u: Float `(B, 2)`, uniform in [0, 1).
        sides: Int32 `(2,)`, height and width in pixels.
        extent: `(H, W)` in pixels.

    Returns:
        Int32 `(B, 2)`, row and column of the first pixel.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.attacks.queries.square_windows import place_windows
        >>> u = tf.constant([[0.0, 0.99]])
        >>> place_windows(u, tf.constant([3, 3]), (5, 5)).numpy().tolist()
        [[0, 2]]
    """
    choices = tf.constant(extent) - sides + 1
    corners = tf.cast(u * tf.cast(choices, u.dtype), tf.int32)
    # The product may round up to the number of choices itself.
    return tf.minimum(corners, choices - 1)


def place_windows_at(
    u: tf.Tensor, weights: tf.Tensor, sides: tf.Tensor, extent: tuple[int, int]
) -> tf.Tensor:
    """Place one window per example so that it holds a pixel that may change.

    A pixel is drawn by its weight, then its place within the window; a window that
    would leave the image is pushed back in.

    Args:
        u: Float `(B, 4)`, uniform in [0, 1).
        weights: Float `(B, H * W)`, >= 0; of an all-zero row the last pixel is taken.
        sides: Int32 `(2,)`, height and width in pixels.
        extent: `(H, W)` in pixels.

    Returns:
        Int32 `(B, 2)`, row and column of the first pixel.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.attacks.queries.square_windows import place_windows_at
        >>> weights, sides = tf.constant([[0.0, 1.0, 0.0, 0.0]]), tf.constant([1, 1])
        >>> place_windows_at(tf.zeros((1, 4)), weights, sides, (2, 2)).numpy().tolist()
        [[0, 1]]
    """
    total = tf.cumsum(weights, axis=-1)
    drawn = u[:, :1] * total[:, -1:]
    pixel = tf.searchsorted(total, drawn, side="right")
    pixel = tf.minimum(pixel, extent[0] * extent[1] - 1)
    where = tf.concat([pixel // extent[1], pixel % extent[1]], axis=-1)
    within = tf.cast(u[:, 2:] * tf.cast(sides, u.dtype), tf.int32)
    last = tf.constant(extent) - sides
    return tf.clip_by_value(where - tf.minimum(within, sides - 1), 0, last)


def offsets(
    corners: tf.Tensor, sides: tf.Tensor, extent: tuple[int, int]
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Tell which pixels lie in a window, and where in it.

    Args:
        corners: Int32 `(B, 2)`, row and column of the first pixel.
        sides: Int32 `(2,)`, height and width in pixels.
        extent: `(H, W)` in pixels.

    Returns:
        The tuple of bool `(B, H, W)`, whether a pixel lies in the window, and int32
        `(B, H, 1)` and `(B, 1, W)`, its row and column counted from the corner.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.attacks.queries.square_windows import offsets
        >>> corners, sides = tf.constant([[0, 1]]), tf.constant([1, 2])
        >>> offsets(corners, sides, (2, 3))[0].numpy().astype(int).tolist()
        [[[0, 1, 1], [0, 0, 0]]]
    """
    rows = (tf.range(extent[0]) - corners[:, :1])[:, :, None]
    columns = (tf.range(extent[1]) - corners[:, 1:])[:, None, :]
    in_rows = (rows >= 0) & (rows < sides[0])
    in_columns = (columns >= 0) & (columns < sides[1])
    return in_rows & in_columns, rows, columns
