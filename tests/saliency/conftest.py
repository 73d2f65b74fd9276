"""Small models with known answers."""

import keras
import numpy as np
import pytest
import tensorflow as tf

try:
    # Two logical devices, if TensorFlow has not been started by another folder yet.
    devices = tf.config.list_physical_devices("CPU")[:1]
    if not tf.config.get_logical_device_configuration(devices[0]):
        two = [tf.config.LogicalDeviceConfiguration()] * 2
        tf.config.set_logical_device_configuration(devices[0], two)
except RuntimeError:
    pass


@pytest.fixture(autouse=True)
def _seed() -> None:
    keras.utils.set_random_seed(7)


@pytest.fixture
def rng_saliency() -> np.random.Generator:
    return np.random.default_rng(3)


@pytest.fixture
def images(rng_saliency) -> np.ndarray:
    return rng_saliency.random((11, 10, 8, 2), dtype=np.float32)


@pytest.fixture
def conv_net() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((10, 8, 2)),
            keras.layers.Conv2D(4, 3, strides=2, activation="silu"),
            keras.layers.Flatten(),
            keras.layers.Dense(3),
        ]
    )


class SmoothNet:
    """`tanh(x A) B` in both, with the gradient of a logit written out."""

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
def rng_methods():
    return np.random.default_rng(3)


@pytest.fixture
def make_net():
    return SmoothNet


@pytest.fixture
def images_methods(rng_methods):
    return rng_methods.random((5, 8, 6, 2)).astype("float32")


@pytest.fixture
def labels():
    return np.array([0, 2, 1, 1, 0])


@pytest.fixture
def net(make_net):
    return make_net((8, 6, 2))


@pytest.fixture
def conv_net_methods():
    keras.utils.set_random_seed(7)
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((8, 6, 2)),
            layers.Conv2D(4, 3, activation="silu", name="first"),
            layers.Conv2D(5, 3, padding="same", activation="silu", name="last"),
            layers.AveragePooling2D(2),
            layers.Flatten(),
            layers.Dense(3),
        ]
    )
