"""Translation invariance: blur the gradient instead of shifting the image."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from keras_jsigr.attacks.calls.images import image_sides

# The paper's kernel at 299 pixels, and one for 28 to 32 pixels.
_LARGE_SIDE, _LARGE_KERNEL, _SMALL_KERNEL = 200, 15, 5


def default_kernel(height: int, width: int) -> int:
    """Return the kernel length for an image size: 15 from 200 pixels on, else 5.

    Args:
        height: In pixels.
        width: In pixels.

    Returns:
        An odd number of pixels.

    Example:
        >>> from keras_jsigr.attacks.transfer.gradient_smoothing import default_kernel
        >>> default_kernel(32, 32), default_kernel(299, 299)
        (5, 15)
    """
    return _LARGE_KERNEL if max(height, width) >= _LARGE_SIDE else _SMALL_KERNEL


def gaussian_kernel(length: int) -> npt.NDArray[np.float64]:
    """Compute a Gaussian at `length` points from -3 to 3 standard deviations.

    Args:
        length: Odd number of pixels.

    Returns:
        Float64 `(length,)` of sum one.

    Reference:
        arXiv 1904.02884.

    Example:
        >>> from keras_jsigr.attacks.transfer.gradient_smoothing import gaussian_kernel
        >>> gaussian_kernel(3).round(3).tolist()
        [0.011, 0.978, 0.011]
    """
    points = np.linspace(-3.0, 3.0, length) if length > 1 else np.zeros(1)
    weights = np.exp(-0.5 * points**2)
    kernel: npt.NDArray[np.float64] = weights / weights.sum()
    return kernel


def smooth_gradient(gradient: tf.Tensor, length: int) -> tf.Tensor:
    """Convolve each channel with a Gaussian; what lies outside the image counts as 0.

    To first order this is the mean gradient over shifted images, weighted by the
    kernel, for a model that does not mind shifts.

    Args:
        gradient: Float32 or float64 `(B, H, W, C)`.
        length: Odd kernel length in pixels; 1 changes nothing.

    Returns:
        Like `gradient`.

    Raises:
        ValueError: If the inputs are no images.

    Reference:
        arXiv 1904.02884.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.attacks.transfer.gradient_smoothing import smooth_gradient
        >>> spread = smooth_gradient(tf.reshape([0.0, 1.0, 0.0], (1, 1, 3, 1)), 3)
        >>> [round(float(g), 3) for g in tf.reshape(spread, (3,))]  # times 0.978 across
        [0.011, 0.957, 0.011]
    """
    image_sides(gradient.shape, "Gradient smoothing")
    channels = gradient.shape[3]
    kernel = tf.constant(gaussian_kernel(length), gradient.dtype)
    # The kernel is a product: two thin convolutions do the work of one square.
    for shape in ((length, 1, 1, 1), (1, length, 1, 1)):
        weights = tf.tile(tf.reshape(kernel, shape), (1, 1, channels, 1))
        gradient = tf.nn.depthwise_conv2d(gradient, weights, (1, 1, 1, 1), "SAME")
    return gradient
