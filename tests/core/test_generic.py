import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keras_jsigr.core.generic import generic_inputs, generic_weights

X = np.random.default_rng(0).uniform(size=(4, 8, 8, 2)).astype("float32")


def deep(depthwise=False):
    net = keras.Sequential([keras.Input((8, 8, 2))])
    for _ in range(12):
        if depthwise:
            net.add(layers.DepthwiseConv2D(3, padding="same", use_bias=False))
            net.add(layers.BatchNormalization())
            net.add(layers.ReLU())
        net.add(layers.Conv2D(8, 1 if depthwise else 3, padding="same"))
        net.add(layers.BatchNormalization())
        net.add(layers.ReLU())
    net.add(layers.Flatten())
    net.add(layers.Dense(3, kernel_initializer="zeros"))
    return net


@pytest.mark.parametrize("depthwise", [False, True])
def test_signals_go_all_the_way(depthwise):
    net = deep(depthwise)
    with generic_weights(net):
        first, second = net(X), net(X[:, ::-1])
    assert np.isfinite(first).all()
    assert np.abs(first).max() < 1e3
    assert np.abs(first - second).max() > 1e-3


def test_the_model_is_as_before_and_they_are_the_same_every_time():
    net = deep()
    weights = [np.asarray(w) for w in net.weights]
    found = []
    for _ in range(2):
        with generic_weights(net):
            found.append(net(X).numpy())
    np.testing.assert_array_equal(*found)
    for before, after in zip(weights, net.weights, strict=True):
        np.testing.assert_array_equal(before, after)


def test_integers_stay():
    class Counts(keras.Layer):
        def build(self, shape):
            self.count = self.add_weight(shape=(2,), dtype="int32", initializer="ones")

        def call(self, x):
            return x[:, :2] * keras.ops.cast(self.count, x.dtype)

    net = keras.Sequential([keras.Input((3,)), Counts()])
    with generic_weights(net):
        np.testing.assert_array_equal(net(np.ones((1, 3))), 1.0)


def test_inputs_keep_structure_shape_and_dtype():
    probe = {"a": np.full((2, 3), np.nan), "b": tf.constant([[1], [2]], tf.int32)}
    found = generic_inputs(probe)
    assert found["a"].dtype == tf.float64
    assert found["a"].shape == (2, 3)
    assert np.ptp(found["a"]) > 0.1
    np.testing.assert_array_equal(found["b"], [[1], [2]])
