"""Logits of models, callables and servings."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_jsigr.core.logits import as_logits

X = np.random.default_rng(0).uniform(0, 1, (2, 8, 8, 3)).astype("float32")


def ending_in(activation, width):
    head = keras.layers.Dense(width, activation=activation)
    return keras.Sequential([keras.Input(X.shape[1:]), keras.layers.Flatten(), head])


def test_as_logits_of_keras_models_agree_with_their_probabilities():
    model = ending_in("softmax", 4)
    logits = as_logits(model, X)(X)
    np.testing.assert_allclose(tf.nn.softmax(logits), model(X), atol=1e-6)


def test_as_logits_of_callables():
    z = np.array([[1.0, -2.0, 0.5], [0.0, 3.0, 1.0]], "float32")
    x = tf.zeros((2, 1))
    p = tf.nn.softmax(z)
    np.testing.assert_allclose(as_logits(lambda x: z, x)(x), z)
    np.testing.assert_allclose(as_logits(lambda x: p, x)(x), np.log(p), rtol=1e-5)
    answer = {"class": tf.argmax(z, 1), "logits": z}
    np.testing.assert_allclose(as_logits(lambda x: answer, x)(x), z)
    served = {"output_0": p}
    np.testing.assert_allclose(as_logits(lambda x: served, x)(x), np.log(p), rtol=1e-5)


def test_as_logits_of_certain_probabilities_is_finite():
    certain = as_logits(lambda x: tf.constant([[1.0, 0.0]]), tf.zeros((1, 1)))
    assert np.isfinite(certain(tf.zeros((1, 1)))).all()


def test_as_logits_of_one_output_has_two_columns():
    model = ending_in("sigmoid", 1)
    logits = as_logits(model, X)(X).numpy()
    assert logits.shape == (2, 2)
    assert (logits[:, 0] == 0).all()
    np.testing.assert_allclose(
        tf.nn.softmax(logits)[:, 1:], model(X), rtol=1e-5, atol=1e-6
    )


def test_as_logits_refuses_what_does_not_classify():
    with pytest.raises(TypeError, match="expected a Keras model or a callable"):
        as_logits("model.keras", X)
    with pytest.raises(ValueError, match=r"expected \(B, C\)"):
        as_logits(lambda x: x, X)


def test_a_layer_named_logits_is_a_layer():
    class Net(keras.Model):
        def __init__(self):
            super().__init__()
            self.hidden, self.logits = keras.layers.Dense(6), keras.layers.Dense(3)

        def call(self, x):
            return self.logits(self.hidden(x))

    x, net = X[:, 0, :6, 0], Net()
    np.testing.assert_allclose(as_logits(net, x)(x), net(x), rtol=1e-6)


class WithLogits(keras.Model):
    """A softmax without a layer, and a method that tells what is before it."""

    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(3)

    def logits(self, x):
        return self.dense(x)

    def call(self, x):
        return tf.nn.softmax(self.logits(x))


class WithOtherLogits(keras.Model):
    """Of a gate, or of a latent variable of another shape."""

    def __init__(self, of):
        super().__init__()
        self.gate, self.dense, self.of = (
            keras.layers.Dense(3),
            keras.layers.Dense(3),
            of,
        )

    def logits(self, z):
        return self.gate(z[:, : self.of])

    def call(self, x):
        return self.dense(x) * tf.sigmoid(self.gate(x))


def test_a_method_logits_is_asked_for_those_of_the_answers_alone():
    x = X[:, 0, :6, 0]
    model = WithLogits()
    model(x)
    np.testing.assert_array_equal(as_logits(model, x)(x), model.dense(x))
    for of in (6, 4):
        other = WithOtherLogits(of)
        other(x)
        np.testing.assert_allclose(as_logits(other, x)(x), other(x), rtol=1e-6)


def test_one_probability_of_a_callable_is_no_logit():
    model = ending_in("sigmoid", 1)
    expected = as_logits(model, X)(X)
    found = as_logits(lambda x: model(x), X)(X)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    # A number between zero and one that goes beyond elsewhere is a logit.
    one = np.full((4, 1), 0.5, "float32")
    np.testing.assert_array_equal(as_logits(lambda x: x, one)(one)[:, 1:], one)


def test_certain_probabilities_in_half_precision_have_finite_gradients():
    z = tf.constant([[9.0, -20.0, 0.0]])

    def served(x):
        return tf.nn.softmax(tf.cast(x, tf.float16))

    with tf.GradientTape() as tape:
        tape.watch(z)
        first = as_logits(served, z)(z)[:, 0]
    assert np.isfinite(tape.gradient(first, z)).all()
