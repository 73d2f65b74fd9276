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


def test_layers_that_are_called_as_activations_are():
    def named(activation):
        shape, end = keras.Input((4,)), layers.Dense(2)
        named = layers.Activation(activation, name=activation)
        return keras.Sequential([shape, named, end])

    assert architecture_of(named("relu")) != architecture_of(named("tanh"))
    assert architecture_of(named("relu")) == architecture_of(named("relu"))


def test_the_size_of_the_first_batch_plays_no_part():
    found = []
    for size in (1, 3):
        model = keras.Sequential([layers.Dense(3), layers.Dense(2)])
        model(keras.ops.ones((size, 4)))
        found.append(architecture_of(model))
    built = keras.Sequential([layers.Dense(3), layers.Dense(2)])
    built.build((None, 4))
    assert found == [architecture_of(built)] * 2


def test_two_orders_of_the_inputs_are_two_models():
    def model(order):
        a, b = keras.Input((2,), name="a"), keras.Input((2,), name="b")
        first, second = (a, b) if order else (b, a)
        return keras.Model([a, b], layers.Subtract()([first, second]))

    assert architecture_of(model(True)) == architecture_of(model(True))
    assert architecture_of(model(True)) != architecture_of(model(False))


class Bare(keras.Model):
    """Without a configuration."""

    def __init__(self, units):
        super().__init__()
        self.dense = layers.Dense(units)

    def call(self, inputs):
        return self.dense(inputs)


def test_a_subclass_without_configuration_gives_its_name():
    assert architecture_of(Bare(2)) == "Bare"
