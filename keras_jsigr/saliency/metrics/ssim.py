"""Whether two maps look alike."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

_WINDOW = 11


def ssim(maps: Any, others: Any) -> tf.Tensor:
    """Compute the structural similarity of two maps, each brought to a maximum of one.

    Means, variances and the covariance in Gaussian windows of 11 pixels (fewer where
    the map is smaller), sigma 1.5, constants 0.01 and 0.03. A map of zeros stays one;
    two maps of zeros are the same: 1.

    Args:
        maps: Float `(B, H, W)`, not negative.
        others: Of the same shape.

    Returns:
        Float32 `(B,)`, -1 to 1; larger is more alike.

    Raises:
        ValueError: If shapes differ or the maps are no images.

    Reference:
        Wang et al. 2004, as in arXiv 1810.03292.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.saliency.metrics.ssim import ssim
        >>> maps = tf.reshape(tf.range(144.0), (1, 12, 12))
        >>> ssim(maps, 3.0 * maps).numpy().tolist()
        [1.0]
    """
    maps, others = tf.cast(maps, tf.float32), tf.cast(others, tf.float32)
    if maps.shape.rank != 3 or maps.shape[1:] != others.shape[1:]:
        raise ValueError(
            f"Got maps of shapes {tuple(maps.shape)} and {tuple(others.shape)}, "
            "expected the same shape (B, H, W). Use `rank_correlation` for maps that "
            "are no images."
        )
    return tf.image.ssim(
        _normalized(maps),
        _normalized(others),
        max_val=1.0,
        filter_size=min(_WINDOW, *maps.shape[1:]),
    )


def _normalized(maps: tf.Tensor) -> tf.Tensor:
    peak = tf.reduce_max(tf.abs(maps), axis=[1, 2], keepdims=True)
    return tf.math.divide_no_nan(maps, peak)[..., tf.newaxis]
