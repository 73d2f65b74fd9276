"""Convolutions of images whose gradient for the image is fast on CPUs."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any, NamedTuple

import tensorflow as tf

from keras_jsigr.core.exchanged import Exchanged
from keras_jsigr.core.tensorflow_private import onednn_is_used
from keras_jsigr.core.transposed_convolution import transposed_convolution

# Above, the kernel of TensorFlow fills its vectors itself.
_MOST_CHANNELS = 4

Convolve = Callable[..., Any]


class Geometry(NamedTuple):
    """What a convolution is like, but for its numbers.

    Attributes:
        image: Height, width and channels of the input.
        kernel: Shape of the kernel.
        strides: Down and across.
        padding: `"SAME"` or `"VALID"`.
    """

    image: tuple[int, int, int]
    kernel: tuple[int, int, int, int]
    strides: tuple[int, int]
    padding: str


def quick_convolutions() -> AbstractContextManager[None]:
    """Let Keras' convolutions of images have a fast gradient for the image.

    The input gradient of a first layer is what training with J-SIGR, attacks and
    saliency maps ask for all the time, and what training otherwise never needs: with
    oneDNN, TensorFlow's kernels on x86-64, it takes two to seven times as long as the
    layer itself (`transposed_convolution` says why). Inside the block it is computed
    another way by `tf.nn.convolution`, through which Keras computes its convolutions;
    outputs are the very same, gradients of any order up to rounding. All other
    convolutions are as they were, and on other devices and kernels the block does
    nothing.

    Returns:
        A context manager; blocks may nest and may run in several threads.

    Example:
        >>> import keras
        >>> import tensorflow as tf
        >>> from keras_jsigr.core.quick_convolution import quick_convolutions
        >>> layer = keras.layers.Conv2D(8, 3, kernel_initializer="ones")
        >>> x = tf.ones((1, 3, 3, 1))
        >>> with quick_convolutions(), tf.GradientTape() as tape:
        ...     tape.watch(x)
        ...     z = layer(x)
        >>> float(tape.gradient(z, x)[0, 1, 1, 0])
        8.0
    """
    devices = {device.device_type for device in tf.config.list_logical_devices()}
    return _QUICK.block() if devices <= {"CPU"} and onednn_is_used() else nullcontext()


def quick(convolution: Convolve) -> Convolve:
    """Return `tf.nn.convolution` with another gradient for images.

    Args:
        convolution: What computes all that is no convolution of float32 images of one
            to four channels, of known height and width, channels last.

    Returns:
        A function of the arguments of `tf.nn.convolution`.
    """

    def convolve(
        input: Any,
        filters: Any,
        strides: Any = None,
        padding: Any = "VALID",
        **rest: Any,
    ) -> Any:
        image, kernel = tf.convert_to_tensor(input), tf.convert_to_tensor(filters)
        geometry = _geometry(image, kernel, strides, padding, **rest)
        if geometry is None:
            return convolution(input, filters, strides, padding, **rest)
        convolved = _convolution_of(geometry)(image, kernel)
        convolved.set_shape((image.shape[0], None, None, None))
        return convolved

    return convolve


def _geometry(
    image: tf.Tensor,
    kernel: tf.Tensor,
    strides: Any,
    padding: Any,
    data_format: str | None = None,
    dilations: Any = None,
    name: str | None = None,
) -> Geometry | None:
    """Describe a convolution; `None` for one that is left alone."""
    del name
    if image.dtype != tf.float32 or kernel.dtype != tf.float32:
        return None
    known = image.shape.rank == 4 and image.shape[1:].is_fully_defined()
    known = known and kernel.shape.is_fully_defined()
    if not known or image.shape[-1] > _MOST_CHANNELS:
        return None
    groups = image.shape[-1] != kernel.shape[2]
    if groups or data_format not in (None, "NHWC") or padding not in ("SAME", "VALID"):
        return None
    down, across = _pair(strides)
    sides = image.shape[1:3], kernel.shape[:2]
    if _pair(dilations) != (1, 1) or (padding == "VALID" and _is_empty(*sides)):
        return None
    return Geometry(
        tuple(image.shape[1:]), tuple(kernel.shape), (down, across), padding
    )


def _pair(value: Any) -> tuple[int, int]:
    if value is None or isinstance(value, int):
        return (value or 1,) * 2
    first, *others = value
    return first, others[0] if others else first


def _is_empty(image: Any, kernel: Any) -> bool:
    return any(pixels < taps for pixels, taps in zip(image, kernel, strict=True))


@cache
def _convolution_of(geometry: Geometry) -> Convolve:
    """Return the convolution of a geometry.

    TensorFlow keeps for ever the graph that a gradient of one's own was defined in:
    here one of a single layer for every geometry, not that of a model with its weights.
    """
    (height, width, _), kernel_shape, strides, padding = geometry
    step = [1, *strides, 1]

    def of_kernel(image: tf.Tensor, cotangent: tf.Tensor) -> tf.Tensor:
        return tf.compat.v1.nn.conv2d_backprop_filter(
            image, kernel_shape, cotangent, step, padding
        )

    @tf.custom_gradient
    def pull(cotangent: tf.Tensor, kernel: tf.Tensor) -> tuple[tf.Tensor, Any]:
        def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            return (
                tf.nn.conv2d(upstream, kernel, step, padding),
                of_kernel(upstream, cotangent),
            )

        pulled = transposed_convolution(
            cotangent, kernel, (height, width), strides, padding
        )
        return pulled, gradient

    @tf.custom_gradient
    def convolve(image: tf.Tensor, kernel: tf.Tensor) -> tuple[tf.Tensor, Any]:
        def gradient(cotangent: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            # Of the graph of the gradient, where that of the gradient will look for it.
            here = tf.identity(kernel)
            return pull(cotangent, here), of_kernel(image, cotangent)

        return tf.nn.conv2d(image, kernel, step, padding), gradient

    signature = [
        tf.TensorSpec((None, *geometry.image), tf.float32),
        tf.TensorSpec(kernel_shape, tf.float32),
    ]
    compiled: Convolve = tf.function(
        convolve, input_signature=signature, autograph=False
    )
    return compiled


_QUICK = Exchanged(tf.nn, "convolution", quick)
