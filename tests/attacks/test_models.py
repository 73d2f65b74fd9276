"""Heads and precisions: the attack sees the logits of any classifier."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_jsigr.attacks import FGSM, PGD


def many(n):
    return np.random.default_rng(7).uniform(size=(n, 8, 8, 1)).astype("float32")


@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_softmax_head_equals_logits_head(make_cnn, scale):
    """Also where the probabilities are exactly zero and one."""
    logits = make_cnn(2, scale=scale)
    softmax = make_cnn(2, activation="softmax", scale=scale)
    x, attack = many(8), PGD(epsilon=0.1, steps=5)
    np.testing.assert_array_equal(attack(softmax, x), attack(logits, x))


def test_sigmoid_head():
    keras.utils.set_random_seed(0)
    layers = [keras.Input((4,)), keras.layers.Dense(1, activation="sigmoid")]
    model = keras.Sequential(layers)
    w = model.layers[0].kernel.numpy()[:, 0]
    x = np.full((2, 4), 0.5, "float32")
    expected = x + 0.1 * np.sign(w) * np.array([[1.0], [-1.0]])
    for y in ([0, 1], [[0], [1]], np.eye(2)[[0, 1]]):
        x_adv = FGSM(epsilon=0.1)(model, x, y)
        np.testing.assert_allclose(x_adv, expected, atol=1e-6)


def test_model_with_a_logits_method(cnn):
    class Hardened(keras.Model):
        def call(self, x, training=False):
            return tf.nn.softmax(cnn(x, training=training))

        def logits(self, x, training=False):
            return cnn(x, training=training)

    x = many(4)
    attack = FGSM(epsilon=0.1)
    np.testing.assert_array_equal(attack(Hardened(), x), attack(cnn, x))


def test_batch_norm_and_dropout_run_in_inference(make_cnn):
    keras.utils.set_random_seed(0)
    norm = keras.layers.BatchNormalization()
    layers = [norm, keras.layers.Dropout(0.5), keras.layers.Flatten()]
    model = keras.Sequential([keras.Input((8, 8, 1)), *layers, keras.layers.Dense(3)])
    before = norm.moving_mean.numpy()
    x, attack = many(4), PGD(epsilon=0.1, steps=3)
    np.testing.assert_array_equal(attack(model, x), attack(model, x))
    np.testing.assert_array_equal(norm.moving_mean.numpy(), before)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision(make_cnn, policy):
    exact = make_cnn(4)
    keras.config.set_dtype_policy(policy)
    try:
        mixed = make_cnn(4)
    finally:
        keras.config.set_dtype_policy("float32")
    mixed.set_weights([w * 1e-2 for w in exact.get_weights()])
    exact.set_weights([w * 1e-2 for w in exact.get_weights()])
    x = many(8)
    attack = FGSM(epsilon=0.1)
    y = np.zeros(8, int)
    moved = np.sign(attack(mixed, x, y) - x)
    # Gradients of about 1e-6: most signs survive half precision.
    assert (moved == np.sign(attack(exact, x, y) - x)).mean() > 0.9


@pytest.mark.parametrize("shape", [(5,), (10, 2), (4, 4, 3)])
def test_one_dimension_and_colour(shape):
    x = np.full((2, *shape), 0.5, "float32")

    def network(x):
        return tf.reshape(x, [-1, np.prod(shape)])[:, :3]

    for norm in ("linf", "l2"):
        assert PGD(epsilon=0.1, norm=norm, steps=2)(network, x).shape == x.shape
