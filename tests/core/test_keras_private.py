"""Pins the names Keras does not export; a new Keras that moves them fails here."""

import inspect

import keras
from keras import layers

from keras_jsigr.core.keras_private import compiled_losses, leaf_layers


class Block(layers.Layer):
    """A composite layer with layers in a list and in an attribute."""

    def __init__(self):
        super().__init__()
        self.first = layers.Dense(2)
        self.rest = [layers.Dense(2), layers.ReLU()]

    def call(self, x):
        x = self.first(x)
        for layer in self.rest:
            x = layer(x)
        return x


def test_flatten_layers_has_the_arguments_in_use():
    parameters = inspect.signature(keras.Model._flatten_layers).parameters
    assert {"include_self", "recursive"} <= set(parameters)


def test_leaves_of_composite_layers_and_nested_models():
    inner = keras.Sequential([layers.Input((2,)), layers.Dense(2, name="inner")])
    block = Block()
    model = keras.Sequential(
        [layers.Input((2,)), block, inner, layers.Dense(1, name="last")]
    )
    leaves = leaf_layers(model)
    assert {block.first, *block.rest} <= set(leaves)
    assert {"inner", "last"} <= {layer.name for layer in leaves}
    assert block not in leaves
    assert not any(isinstance(x, (keras.Model, layers.InputLayer)) for x in leaves)


def test_a_shared_layer_is_listed_once():
    shared = layers.Dense(2)
    inputs = layers.Input((2,))
    model = keras.Model(inputs, shared(shared(inputs)))
    assert leaf_layers(model) == [shared]


def test_compiled_losses():
    model = keras.Sequential([layers.Input((2,)), layers.Dense(1)])
    assert compiled_losses(model) == []

    def own(y, p):
        return keras.ops.mean(y - p)

    loss = keras.losses.BinaryCrossentropy()
    for given, listed in (("mse", ["mse"]), (loss, [loss]), (own, [own])):
        model.compile(loss=given)
        assert compiled_losses(model) == listed
    model.compile(loss=[loss])
    assert compiled_losses(model) == [loss]
