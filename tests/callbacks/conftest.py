"""Tiny image classifiers and data for the callbacks."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_jsigr as kj

N, CLASSES = 16, 3


class Traced(layers.Layer):
    """Counts how often Python runs through the model with symbolic tensors."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.traces = 0

    def call(self, inputs):
        self.traces += not hasattr(inputs, "numpy")
        return inputs


def net(shape=(8, 8, 1), classes=CLASSES, dropout=0.0):
    keras.utils.set_random_seed(1)
    return keras.Sequential(
        [
            layers.Input(shape),
            Traced(name="traced"),
            layers.Flatten(),
            layers.Dense(6, activation="silu"),
            layers.BatchNormalization(),
            layers.Dropout(dropout),
            layers.Dense(classes, activation="softmax"),
        ],
        name="net",
    )


def compiled(model, **kwargs):
    model.compile(keras.optimizers.SGD(0.05), "sparse_categorical_crossentropy", **kwargs)
    return model


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    x = rng.uniform(0.0, 1.0, (N, 8, 8, 1)).astype("float32")
    return x, np.arange(N) % CLASSES


@pytest.fixture
def plain():
    """Make a compiled Keras classifier."""
    return lambda **kwargs: compiled(net(**kwargs))


@pytest.fixture
def hardened():
    """Make a compiled hardened classifier, without warm-up."""

    def make(compile_with=None, dropout=0.0, warmup=0, input_range=(0.0, 1.0), **settings):
        config = kj.JSIGRConfig(**{"epsilon": 0.1, "check_gradients": False, **settings})
        robust = kj.harden(
            net(dropout=dropout),
            recipe=config,
            warmup=warmup,
            input_range=input_range,
            verbose=0,
        )
        return compiled(robust, **(compile_with or {}))

    return make


@pytest.fixture
def fit(data):
    """Train on the data, quietly."""

    def run(model, *callbacks, epochs=2, **kwargs):
        kwargs = {"batch_size": 4, "verbose": 0, "shuffle": False, **kwargs}
        return model.fit(*data, epochs=epochs, callbacks=list(callbacks), **kwargs)

    return run
