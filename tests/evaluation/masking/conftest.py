"""Small networks, trained once, and landscapes whose answers are known."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_jsigr import datasets, harden
from keras_jsigr.attacks import PGD
from keras_jsigr.evaluation.masking.subject import Subject

EPSILON = 0.1


def build(side, seed=0):
    """conv4x4-s2(16, 32) + fc100, ReLU."""
    keras.utils.set_random_seed(seed)
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((side, side, 1)),
            layers.Conv2D(16, 4, strides=2, padding="same", activation="relu"),
            layers.Conv2D(32, 4, strides=2, padding="same", activation="relu"),
            layers.Flatten(),
            layers.Dense(100, activation="relu"),
            layers.Dense(10),
        ]
    )


@pytest.fixture(scope="session")
def make_net():
    return build


@pytest.fixture(scope="session")
def data():
    return datasets.load("fashion_mnist", verbose=False)


@pytest.fixture(scope="session")
def test_set(data):
    return half_size(data.x_test[:120]), data.y_test[:120]


def half_size(x):
    """Means of 2x2 pixels, four times as fast."""
    return x.reshape(len(x), 14, 2, 14, 2, 1).mean((2, 4))


@pytest.fixture(scope="session")
def honest(data):
    """The same network, trained plainly, by PGD, and with J-SIGR."""

    def train(epochs, **settings):
        net = build(14)
        robust = harden(net, verbose=0, probe=False, **settings)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        robust.compile(keras.optimizers.Adam(2e-3), loss)
        x, y = half_size(data.x_train[:1200]), data.y_train[:1200]
        robust.fit(x, y, epochs=epochs, batch_size=64, verbose=0)
        return robust

    off = {"jacobian_weight": 0.0, "selective_weight": 0.0}
    adversary = PGD(epsilon=EPSILON, steps=2)
    return {
        "plain": train(8, **off).base,
        "adversarial": train(8, adversary=adversary, **off).base,
        "hardened": train(8, ramp_steps=20),
    }


@pytest.fixture(scope="session")
def subject_of():
    """Put a model, examples and labels into a `Subject`."""

    def make(model, x, y, epsilon=EPSILON, classes=None, **settings):
        classes = max(2, int(np.max(y)) + 1) if classes is None else classes
        settings = {"norm": "linf", "input_range": (0.0, 1.0), **settings}
        return Subject(
            model=model, x=x, y=y, classes=classes, epsilon=epsilon, **settings
        )

    return make


@pytest.fixture(scope="session")
def landscape():
    """Make a classifier of one feature by what it loses at a distance from 0.5.

    Log odds against class 0 are piecewise linear through the knots and mirrored:
    positive where the model errs. The slope is that of the gradient everywhere.
    """

    def make(knots, values):
        slopes = np.diff(values) / np.diff(knots)
        bends = np.diff(slopes, prepend=0.0)

        def model(x):
            distance = tf.abs(x - 0.5)
            # Added one by one, so that rounding cannot smear a flat part.
            loss = tf.fill(tf.shape(x), tf.cast(values[0], x.dtype))
            for knot, bend in zip(knots[:-1], bends, strict=True):
                loss += bend * tf.nn.relu(distance - knot)
            return tf.concat([tf.zeros_like(loss), loss], axis=-1)

        return model

    return make


@pytest.fixture(scope="session")
def middle():
    """Examples at 0.5, all of class 0."""
    return np.full((200, 1), 0.5, "float32"), np.zeros(200, int)
