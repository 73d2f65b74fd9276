"""Cutting a classifier behind its first layer, and working there as if at the input."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keras_jsigr.core.linear_front import Front, find_front
from keras_jsigr.core.logits import as_logits

RNG = np.random.default_rng(0)
X = tf.constant(RNG.uniform(0, 1, (3, 8, 8, 2)), tf.float32)


def sequential(*inner, head=None):
    tail = [layers.Flatten(), layers.Dense(4, activation=head)]
    return keras.Sequential([keras.Input((8, 8, 2)), *inner, *tail])


def with_norm():
    norm = layers.BatchNormalization()
    model = sequential(layers.Conv2D(5, 3), norm, layers.ReLU())
    for variable in norm.variables:
        variable.assign(RNG.uniform(0.5, 1.5, variable.shape))
    return model


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.first = layers.Conv2D(5, 3, strides=2, activation="tanh")
        self.tail = keras.Sequential([layers.Flatten(), layers.Dense(4)])

    def call(self, x):
        return self.tail(self.first(x))


def subclassed():
    model = Subclassed()
    model(X)
    return model


MODELS = {
    "convolution": lambda: sequential(
        layers.Conv2D(5, 4, strides=2, padding="same", activation="silu")
    ),
    "no bias": lambda: sequential(
        layers.Conv2D(5, 3, use_bias=False, activation="elu")
    ),
    "depthwise": lambda: sequential(layers.DepthwiseConv2D(3, activation="gelu")),
    "dense on the last axis": lambda: sequential(layers.Dense(6, activation="silu")),
    "folded normalization": with_norm,
    "softmax head": lambda: sequential(
        layers.Conv2D(5, 3, activation="silu"), head="softmax"
    ),
    "nested": lambda: sequential(
        keras.Sequential([keras.Input((8, 8, 2)), layers.Conv2D(5, 3), layers.ReLU()])
    ),
    "subclassed": subclassed,
}


def front_of(model):
    return find_front(model, as_logits(model, X), X)


@pytest.mark.parametrize("name", MODELS)
def test_the_front_stands_for_the_input(name):
    model = MODELS[name]()
    front = front_of(model)
    assert front.layer is not None
    np.testing.assert_allclose(
        front.logits(front.features(X), X), front(X), rtol=1e-4, atol=1e-5
    )
    step = tf.constant(RNG.normal(0, 1, X.shape), tf.float32)
    moved = front.features(X) + front.moved(step)
    np.testing.assert_allclose(moved, front.features(X + step), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_sums_of_gradients_are_pulled_back_at_once(name):
    model = MODELS[name]()
    front = front_of(model)

    @tf.function(input_signature=[tf.TensorSpec((None, 8, 8, 2))])
    def at_features(x):
        features = front.features(x)
        with tf.GradientTape() as tape:
            tape.watch(features)
            total = tf.reduce_sum(front.logits(features, x)[:, 0] ** 2)
        return front.pull(tape.gradient(total, features), x)

    with tf.GradientTape() as tape:
        tape.watch(X)
        total = tf.reduce_sum(front(X)[:, 0] ** 2)
    np.testing.assert_allclose(
        at_features(X), tape.gradient(total, X), rtol=1e-4, atol=1e-5
    )


def test_the_model_is_as_before():
    model = MODELS["convolution"]()
    front, expected = front_of(model), model(X)
    front.logits(front.features(X), X)
    assert model.layers[0].activation is keras.activations.silu
    np.testing.assert_array_equal(model(X), expected)


def two_readers():
    image = keras.Input((8, 8, 2))
    a, b = layers.Conv2D(5, 3)(image), layers.Conv2D(5, 3)(image)
    x = layers.Flatten()(layers.Multiply()([a, b]))
    return keras.Model(image, layers.Dense(4)(x))


def past_the_front():
    image = keras.Input((8, 8, 2))
    x = layers.Conv2D(2, 3, padding="same")(image)
    x = layers.Flatten()(layers.Multiply()([x, image]))
    return keras.Model(image, layers.Dense(4)(x))


def past_the_front_to_a_head_of_zeros():
    model = past_the_front()
    model.layers[-1].kernel.assign(tf.zeros_like(model.layers[-1].kernel))
    return model


EMPTY = {
    "two readers": two_readers,
    "past the front": past_the_front,
    "past the front, to a head of zeros": past_the_front_to_a_head_of_zeros,
    "something before": lambda: sequential(layers.ReLU(), layers.Conv2D(5, 3)),
    "half precision": lambda: sequential(layers.Conv2D(5, 3, dtype="mixed_float16")),
}


@pytest.mark.parametrize("name", EMPTY)
def test_no_front(name):
    assert front_of(EMPTY[name]()).layer is None


def test_a_callable_has_an_empty_front():
    def model(x):
        return tf.reduce_sum(x, [1, 2])

    front = find_front(model, model, X)
    assert front == Front(model)
    assert front.features(X) is X
    assert front.moved(X) is X
    np.testing.assert_array_equal(front.logits(X, X), model(X))
    np.testing.assert_array_equal(front.pull(X, X), X)
