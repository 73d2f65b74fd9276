"""Text that models share if they do the same with their weights."""

import keras
import pytest
from keras import layers

import keras_jsigr as kj
from keras_jsigr.core.architecture import architecture_of


def net(activation="relu", units=3):
    return keras.Sequential(
        [keras.Input((4,)), layers.Dense(units, activation=activation), layers.Dense(2)]
    )


def test_names_and_compile_state_play_no_part():
    one, two = net(), net()
    two.compile("adam", "mse")
    assert one.layers[0].name != two.layers[0].name
    assert architecture_of(one) == architecture_of(two)


def test_frozen_layers_compute_the_same():
    model = net()
    before = architecture_of(model)
    assert '"trainable": true' in before
    model.layers[0].trainable = False
    assert architecture_of(model) == before
    model.trainable = False
    assert architecture_of(model) == before


@pytest.mark.parametrize("other", [net("silu"), net(units=4)])
def test_what_is_computed_counts(other):
    assert architecture_of(other) != architecture_of(net())


def test_the_smooth_twin_is_another():
    model = net()
    assert architecture_of(kj.with_smooth_activations(model)) != architecture_of(model)


class Bare(keras.Model):
    """Without a configuration."""

    def __init__(self, units):
        super().__init__()
        self.dense = layers.Dense(units)

    def call(self, inputs):
        return self.dense(inputs)


def test_a_subclass_without_configuration_gives_its_name():
    assert architecture_of(Bare(2)) == "Bare"
