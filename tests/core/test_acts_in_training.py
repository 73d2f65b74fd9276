"""Which layers depend on `training`."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_jsigr as kj
from keras_jsigr.core.acts_in_training import acts_in_training


def net(*middle, shape=(8, 8, 1)):
    return keras.Sequential(
        [keras.Input(shape), *middle, layers.Flatten(), layers.Dense(3)]
    )


def frozen(layer):
    layer.trainable = False
    return layer


CASES = {
    "plain": (lambda: net(layers.Conv2D(2, 3)), False),
    "dropout": (lambda: net(layers.Dropout(0.5)), True),
    "no dropout": (lambda: net(layers.Dropout(0.0)), False),
    "noise": (lambda: net(layers.GaussianNoise(0.1)), True),
    "augmentation": (lambda: net(layers.RandomFlip("horizontal")), True),
    "batch norm": (lambda: net(layers.BatchNormalization()), True),
    "frozen": (lambda: net(frozen(layers.BatchNormalization())), False),
    "layer norm": (lambda: net(layers.LayerNormalization()), False),
    "nested": (lambda: net(net(layers.Dropout(0.1)), layers.Dense(3)), True),
    "lstm": (lambda: net(layers.LSTM(3), shape=(4, 2)), False),
    "lstm drops": (lambda: net(layers.LSTM(3, dropout=0.1), shape=(4, 2)), True),
    "recurrent": (
        lambda: net(layers.GRU(3, recurrent_dropout=0.1), shape=(4, 2)),
        True,
    ),
    "both ways": (
        lambda: net(layers.Bidirectional(layers.LSTM(3)), shape=(4, 2)),
        False,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_layers(name):
    make, expected = CASES[name]
    assert acts_in_training(make()) is expected


@pytest.mark.parametrize("seed", range(4))
def test_an_augmentation_is_seen_whatever_it_draws(seed):
    flip = layers.RandomFlip("horizontal", seed=seed)
    robust = kj.harden(net(flip), verbose=0, probe=False)
    assert not robust._forward.one_mode


def test_a_head_of_zeros_hides_nothing():
    model = net(layers.Dropout(0.5))
    model.layers[-1].kernel.assign(np.zeros_like(model.layers[-1].kernel))
    assert not kj.harden(model, verbose=0, probe=False)._forward.one_mode


def test_layers_that_are_freed_later():
    """Fine-tuning: differences of logits in one mode, also after unfreezing."""
    norm = frozen(layers.BatchNormalization())
    robust = kj.harden(
        net(norm), estimator="finite_difference", norm="squared", verbose=0
    )
    assert robust._forward.one_mode
    norm.trainable = True
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    robust.compile(keras.optimizers.SGD(1e-3), loss)
    x = np.random.default_rng(0).uniform(size=(16, 8, 8, 1)).astype("float32")
    history = robust.fit(x, np.arange(16) % 3, epochs=2, verbose=0).history
    assert max(history["fused_penalty"]) < 1.0


class OwnNoise(layers.Layer):
    """Holds a layer, and adds noise by itself."""

    def __init__(self):
        super().__init__()
        self.inner = layers.Dense(2)

    def call(self, inputs, training=None):
        noise = keras.random.normal(keras.ops.shape(inputs)) if training else 0.0
        return self.inner(inputs + noise)


def test_what_a_layer_of_the_user_does_is_measured():
    model = net(OwnNoise())
    assert not acts_in_training(model)
    assert not kj.harden(model, verbose=0, probe=False)._forward.one_mode


def test_behind_a_head_of_zeros_too():
    model = net(OwnNoise())
    model.layers[-1].kernel.assign(np.zeros_like(model.layers[-1].kernel))
    assert not kj.harden(model, verbose=0, probe=False)._forward.one_mode
