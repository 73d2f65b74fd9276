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
def rng() -> np.random.Generator:
    return np.random.default_rng(3)


@pytest.fixture
def images(rng) -> np.ndarray:
    return rng.random((11, 10, 8, 2), dtype=np.float32)


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
