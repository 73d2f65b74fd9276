"""The gradient of a convolution for an input of few channels, as CPUs like it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import tensorflow as tf

# Vector units of CPUs are kept busy by so many channels.
_WIDTH = 16


@dataclass(frozen=True)
class Side:
    """A convolution along one side of its input, and its transpose in blocks.

    `y[o] = sum_t x[o s + t - before] w[t]`. Every `r s` pixels in a row are one block.
    What a block receives comes from `r + m - 1` neighbouring outputs, `m` being
    `ceil(k / s)`, so that the transpose is a convolution too: from outputs to blocks,
    of stride `r`.

    Attributes:
        length: Pixels of the input.
        taps: Pixels of the kernel, `k`.
        stride: `s`.
        padded: Whether the input is padded, as by `"SAME"`.
        repeats: Strides in a block, `r`.
    """

    length: int
    taps: int
    stride: int
    padded: bool
    repeats: int

    @cached_property
    def outputs(self) -> int:
        """Length of the output."""
        reach = self.length if self.padded else self.length - self.taps + 1
        return -(-reach // self.stride)

    @cached_property
    def before(self) -> int:
        """Pixels of padding before the first."""
        span = (self.outputs - 1) * self.stride + self.taps
        return max(span - self.length, 0) // 2 if self.padded else 0

    @cached_property
    def block(self) -> int:
        """Pixels of a block."""
        return self.repeats * self.stride

    @cached_property
    def blocks(self) -> int:
        """How many blocks hold the input and the padding before it."""
        return -(-(self.length + self.before) // self.block)

    @cached_property
    def earlier(self) -> int:
        """Outputs before its own that a block receives from, `m - 1`."""
        return -(-self.taps // self.stride) - 1

    @cached_property
    def later(self) -> int:
        """Outputs that are missing behind the last; negative: that reach no pixel."""
        return self.blocks * self.repeats - self.outputs

    @cached_property
    def tap_of(self) -> np.ndarray:
        """The tap between an output and a pixel of its block, `k` where there is none.

        Int `(r + m - 1, r s)`.
        """
        output = np.arange(self.repeats + self.earlier)[:, None] - self.earlier
        tap = np.arange(self.block) - output * self.stride
        return np.where((tap >= 0) & (tap < self.taps), tap, self.taps)


def transposed_convolution(
    cotangent: tf.Tensor,
    kernel: tf.Tensor,
    sides: tuple[int, int],
    strides: tuple[int, int],
    padding: str,
) -> tf.Tensor:
    """Compute `W^T g` for a convolution `W`.

    The values of `tf.nn.conv2d_transpose`, by a convolution whose filters are the
    pixels of a block: that of TensorFlow has as many as the input has channels, and
    with one or three of them most of a vector unit idles.

    Args:
        cotangent: Float `(B, H', W', O)`, shaped like the output of the convolution.
        kernel: Float `(K, L, I, O)`.
        sides: Height and width of the input.
        strides: Of the convolution, down and across.
        padding: `"SAME"` or `"VALID"`.

    Returns:
        `(B, *sides, I)` of the dtype of `cotangent`.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.core.transposed_convolution import transposed_convolution
        >>> g, w = (
        ...     tf.constant([[[[1.0], [10.0]]]]),
        ...     tf.reshape([1.0, 2.0, 3.0], (1, 3, 1, 1)),
        ... )
        >>> pulled = transposed_convolution(g, w, (1, 5), (1, 2), "VALID")
        >>> pulled[0, 0, :, 0].numpy().tolist()
        [1.0, 2.0, 13.0, 20.0, 30.0]
    """
    channels = kernel.shape[2]
    down, across = (
        Side(length, taps, stride, padding == "SAME", _repeats(stride, channels))
        for length, taps, stride in zip(sides, kernel.shape[:2], strides, strict=True)
    )
    blocked = tf.nn.conv2d(
        _window(cotangent, down, across),
        _filters_of_pixels(kernel, down, across),
        (down.repeats, across.repeats),
        "VALID",
    )
    # On CPUs faster than tf.nn.depth_to_space.
    pixels = tf.reshape(
        blocked,
        (-1, down.blocks, across.blocks, down.block, across.block, channels),
    )
    pulled = tf.reshape(
        tf.transpose(pixels, (0, 1, 3, 2, 4, 5)),
        (-1, down.blocks * down.block, across.blocks * across.block, channels),
    )
    height, width = sides
    return pulled[
        :, down.before : down.before + height, across.before : across.before + width
    ]


def _repeats(stride: int, channels: int) -> int:
    """Choose how many strides make a block, so that a block fills a vector."""
    return max(1, round(math.sqrt(_WIDTH / channels) / stride))


def _window(cotangent: tf.Tensor, down: Side, across: Side) -> tf.Tensor:
    """Give the outputs the borders that whole blocks need."""
    paddings = [(side.earlier, max(side.later, 0)) for side in (down, across)]
    kept = [side.outputs + min(side.later, 0) for side in (down, across)]
    return tf.pad(cotangent[:, : kept[0], : kept[1]], ((0, 0), *paddings, (0, 0)))


def _filters_of_pixels(kernel: tf.Tensor, down: Side, across: Side) -> tf.Tensor:
    """Arrange a kernel `(K, L, I, O)` for blocks, `(U, V, O, pixels * I)`."""
    # One row and column of zeros more, for pixels that an output does not reach.
    padded = tf.pad(kernel, ((0, 1), (0, 1), (0, 0), (0, 0)))
    rows: Any = tf.gather(padded, down.tap_of, axis=0)
    both = tf.gather(rows, across.tap_of, axis=2)
    # (U, R, V, S, I, O) to (U, V, O, R, S, I)
    arranged = tf.transpose(both, (0, 2, 5, 1, 3, 4))
    height, width = len(down.tap_of), len(across.tap_of)
    channels, filters = kernel.shape[2:]
    pixels = down.block * across.block
    return tf.reshape(arranged, (height, width, filters, pixels * channels))
