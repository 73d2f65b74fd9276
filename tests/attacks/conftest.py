"""Small seeded models and inputs that the attack tests share."""

import keras
import numpy as np
import pytest

SHAPE, CLASSES = (8, 8, 1), 5


def build_cnn(seed=0, activation=None, scale=1.0):
    keras.utils.set_random_seed(seed)
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input(SHAPE),
            layers.Conv2D(6, 3, strides=2, activation="silu"),
            layers.Flatten(),
            layers.Dense(16, activation="silu"),
            layers.Rescaling(scale),
            layers.Dense(CLASSES, activation=activation),
        ]
    )


@pytest.fixture(scope="session")
def make_cnn():
    return build_cnn


@pytest.fixture(scope="session")
def cnn():
    return build_cnn()


@pytest.fixture(scope="session")
def images():
    """Away from the ends of the range, so that only the ball binds."""
    rng = np.random.default_rng(0)
    return rng.uniform(0.35, 0.65, (12, *SHAPE)).astype("float32")


@pytest.fixture(scope="session")
def labels(cnn, images):
    return np.argmax(cnn(images), axis=-1)
