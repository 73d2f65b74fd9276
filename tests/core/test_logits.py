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
