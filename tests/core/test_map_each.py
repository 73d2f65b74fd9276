"""A function of each element, without a trace left behind."""

import numpy as np
import pytest
import tensorflow as tf

from keras_jsigr.core.map_each import map_each


def test_equals_map_fn():
    elements = tf.constant(np.random.default_rng(0).random((5, 3)), tf.float32)
    ours = map_each(tf.cumsum, elements, (3,))
    theirs = tf.map_fn(tf.cumsum, elements)
    np.testing.assert_array_equal(ours, theirs)


def test_traced_with_open_shapes():
    @tf.function(input_signature=[tf.TensorSpec((None, None))], autograph=False)
    def squared(x):
        return map_each(tf.square, x, (None,))

    assert squared.get_concrete_function().output_shapes == tf.TensorShape([None, None])
    np.testing.assert_array_equal(squared(tf.constant([[2.0], [3.0]])), [[4.0], [9.0]])


def test_gradients_pass():
    x = tf.constant([1.0, 2.0])
    with tf.GradientTape() as tape:
        tape.watch(x)
        total = tf.reduce_sum(map_each(tf.square, x, ()))
    np.testing.assert_array_equal(tape.gradient(total, x), [2.0, 4.0])


def test_an_error_leaves_nothing_behind():
    def broken(t):
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        tf.function(lambda: map_each(broken, tf.zeros(2), ()), autograph=False)()
    # After tf.map_fn: "Caching devices is not yet supported".
    with tf.distribute.MirroredStrategy(
        ["CPU:0", "CPU:1"], cross_device_ops=tf.distribute.ReductionToOneDevice()
    ).scope():
        assert tf.distribute.has_strategy()
