"""The transpose of a convolution in blocks is that of TensorFlow."""

import numpy as np
import pytest
import tensorflow as tf

from keras_jsigr.core.transposed_convolution import Side, transposed_convolution


def drawn(rng, *shape, dtype="float64"):
    return tf.constant(rng.standard_normal(shape), dtype)


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("strides", [(1, 1), (2, 2), (3, 1), (2, 4)])
@pytest.mark.parametrize("taps", [(1, 1), (2, 3), (3, 3), (4, 5), (7, 2)])
@pytest.mark.parametrize("sides", [(7, 7), (8, 12), (13, 9)])
def test_against_tensorflow(rng, sides, taps, strides, channels, padding):
    kernel = drawn(rng, *taps, channels, 3)
    image = drawn(rng, 2, *sides, channels)
    output = tf.nn.conv2d(image, kernel, strides, padding)
    cotangent = drawn(rng, *output.shape)
    pulled = transposed_convolution(cotangent, kernel, sides, strides, padding)
    expected = tf.nn.conv2d_transpose(cotangent, kernel, image.shape, strides, padding)
    assert pulled.shape == image.shape
    np.testing.assert_allclose(pulled, expected, atol=1e-12)
    # What defines a transpose: <g, W x> = <W^T g, x>.
    left, right = tf.reduce_sum(cotangent * output), tf.reduce_sum(pulled * image)
    np.testing.assert_allclose(left, right, rtol=1e-10)


def test_by_hand():
    cotangent = tf.constant([[[[1.0], [10.0]]]])
    kernel = tf.reshape([1.0, 2.0, 3.0], (1, 3, 1, 1))
    pulled = transposed_convolution(cotangent, kernel, (1, 6), (1, 2), "VALID")
    # The last pixel is behind the last position of the kernel.
    assert pulled[0, 0, :, 0].numpy().tolist() == [1.0, 2.0, 13.0, 20.0, 30.0, 0.0]


def test_no_examples(rng):
    cotangent, kernel = tf.zeros((0, 4, 4, 2)), tf.zeros((3, 3, 1, 2))
    pulled = transposed_convolution(cotangent, kernel, (4, 4), (1, 1), "SAME")
    assert pulled.shape == (0, 4, 4, 1)


def test_nothing_is_added_to_what_is_zero(rng):
    cotangent = drawn(rng, 2, 5, 5, 4, dtype="float32").numpy()
    cotangent[0] = 0.0
    cotangent[1, 3:] = 0.0
    kernel = drawn(rng, 3, 3, 1, 4, dtype="float32")
    pulled = transposed_convolution(cotangent, kernel, (5, 5), (1, 1), "SAME")
    assert not pulled[0].numpy().any()
    # Row 3 hears of output 2 alone, row 4 of none.
    assert pulled[1, 3].numpy().all()
    assert not pulled[1, 4].numpy().any()


def test_a_block_and_what_reaches_it():
    side = Side(length=28, taps=4, stride=2, padded=False, repeats=2)
    assert (side.outputs, side.before, side.block, side.blocks) == (13, 0, 4, 7)
    # Three outputs reach a block: the one before its own two, by its last two taps.
    assert side.tap_of.tolist() == [[2, 3, 4, 4], [0, 1, 2, 3], [4, 4, 0, 1]]
