"""Small models with known answers, and data for them."""

import keras
import numpy as np
import pytest
import tensorflow as tf


class SmoothNet:
    """`tanh(x A) B` in TensorFlow and in NumPy, with the gradient of a logit."""

    def __init__(self, shape):
        rng = np.random.default_rng(5)
        size = int(np.prod(shape))
        self.a = rng.normal(size=(size, 6)) / np.sqrt(size)
        self.b = rng.normal(size=(6, 3))

    def __call__(self, x):
        flat = tf.reshape(tf.cast(x, tf.float32), (-1, len(self.a)))
        hidden = tf.tanh(flat @ self.a.astype("float32"))
        return hidden @ self.b.astype("float32")

    def logits(self, x):
        return np.tanh(x.reshape(-1, len(self.a)) @ self.a) @ self.b

    def probabilities(self, x):
        e = np.exp(self.logits(x))
        return e / e.sum(-1, keepdims=True)

    def gradient(self, x, y):
        hidden = np.tanh(x.reshape(-1, len(self.a)) @ self.a)
        slope = (1 - hidden**2) * self.b.T[y]
        return (slope @ self.a.T).reshape(x.shape)


@pytest.fixture
def rng():
    return np.random.default_rng(3)


@pytest.fixture
def images(rng):
    return rng.random((11, 10, 8, 2), dtype=np.float32)


@pytest.fixture
def labels():
    return np.arange(11) % 3


@pytest.fixture
def make_net():
    return SmoothNet


@pytest.fixture
def net():
    return SmoothNet((10, 8, 2))


@pytest.fixture
def conv_net():
    keras.utils.set_random_seed(7)
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((10, 8, 2)),
            layers.Conv2D(4, 3, activation="silu", name="first"),
            layers.Conv2D(5, 3, padding="same", activation="silu", name="last"),
            layers.AveragePooling2D(2),
            layers.Flatten(),
            layers.Dense(3),
        ]
    )
