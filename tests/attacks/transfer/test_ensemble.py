"""Ensembles in logits: the mean, its checks, and attacks on it."""

import gc
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_jsigr.attacks import FGSM, MIFGSM
from keras_jsigr.attacks.transfer.ensemble import LogitsEnsemble
from keras_jsigr.core.logits import as_logits

RNG = np.random.default_rng(13)


def many(n):
    return np.random.default_rng(6).uniform(size=(n, 8, 8, 1)).astype("float32")


@pytest.mark.parametrize("weights", [None, [1, 1, 0.25], [0, 3, 1]])
def test_weighted_mean_of_any_heads(make_cnn, weights):
    logits = [make_cnn(seed) for seed in range(3)]
    softmax = make_cnn(1, activation="softmax")

    class Hardened(keras.Model):
        def call(self, x, training=False):
            return tf.nn.softmax(logits[2](x, training=training))

        def logits(self, x, training=False):
            return logits[2](x, training=training)

    ensemble = LogitsEnsemble([logits[0], softmax, Hardened()], weights)
    x = many(6)
    share = np.ones(3) if weights is None else np.array(weights)
    expected = np.tensordot(share / share.sum(), [z(x) for z in logits], 1)
    np.testing.assert_allclose(ensemble(x), expected, atol=1e-5)
    np.testing.assert_allclose(ensemble.weights, share / share.sum())


@pytest.mark.parametrize("fuse", ["logits", "probabilities"])
def test_a_member_without_weight_may_rule_out_a_class(fuse):
    def ruled_out(x):
        return tf.concat([x[:, :1], tf.fill(tf.shape(x[:, 1:]), -np.inf)], axis=1)

    ensemble = LogitsEnsemble([lambda x: x, ruled_out], weights=[1, 0], fuse=fuse)
    x = tf.constant([[1.0, 2.0]])
    alone = LogitsEnsemble([lambda x: x], fuse=fuse)
    np.testing.assert_allclose(ensemble(x), alone(x), rtol=1e-6)


def test_mean_of_probabilities(make_cnn):
    a, b = make_cnn(0), make_cnn(1, activation="softmax")
    ensemble = LogitsEnsemble([a, b, b], [3, 1, 0], fuse="probabilities")
    x = many(6)
    expected = 0.75 * tf.nn.softmax(a(x)) + 0.25 * b(x)
    np.testing.assert_allclose(tf.nn.softmax(ensemble(x)), expected, atol=1e-6)
    assert np.isfinite(FGSM(epsilon=0.1)(ensemble, x)).all()


def test_one_unit_beside_two():
    """A sigmoid unit counts as the two logits (0, z)."""
    keras.utils.set_random_seed(0)
    unit = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(1, activation="sigmoid")]
    )
    pair = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    x = RNG.normal(size=(5, 4)).astype("float32")
    z = x @ unit.layers[0].kernel.numpy()
    expected = (np.concatenate([0 * z, z], axis=1) + pair(x).numpy()) / 2
    np.testing.assert_allclose(LogitsEnsemble([unit, pair])(x), expected, atol=1e-6)


def test_first_call_inside_a_function(make_cnn):
    models = [make_cnn(0, activation="softmax"), make_cnn(1)]
    x = many(4)
    expected = LogitsEnsemble(models)(x)
    inside = tf.function(LogitsEnsemble(models), autograph=False)
    np.testing.assert_allclose(inside(x), expected, atol=1e-6)
    open_shape = [tf.TensorSpec((None, None, None, 1))]
    other = LogitsEnsemble(models)
    with pytest.raises(ValueError, match="expected a fixed one"):
        tf.function(other, input_signature=open_shape, autograph=False)(x)


def test_attacks_see_one_model(make_cnn):
    a, b = make_cnn(0), make_cnn(1)
    ensemble, x = LogitsEnsemble([a, b], [2, 1]), many(5)
    attack = MIFGSM.nips2017()
    expected = attack(lambda x: (2 * a(x) + b(x)) / 3, x)
    np.testing.assert_allclose(attack(ensemble, x), expected, atol=1e-5)
    # Without labels, the ensemble's own decisions are left.
    decided = np.argmax(ensemble(x), axis=-1)
    np.testing.assert_array_equal(attack(ensemble, x), attack(ensemble, x, decided))
    probe = as_logits(ensemble, x)
    np.testing.assert_allclose(probe(x), ensemble(x), atol=1e-6)


@pytest.mark.slow
def test_members_follow_their_weights_and_can_be_collected(make_cnn):
    model, attack, x = make_cnn(0), FGSM(epsilon=0.1), many(3)
    ensemble = LogitsEnsemble([model, make_cnn(1)])
    before = ensemble(x)
    attack(ensemble, x)
    model.set_weights([2 * w for w in model.get_weights()])
    assert np.abs(ensemble(x) - before).max() > 1e-3
    fresh = FGSM(epsilon=0.1)(LogitsEnsemble(ensemble.models), x)
    np.testing.assert_array_equal(attack(ensemble, x), fresh)
    dead = weakref.ref(ensemble)
    del ensemble
    gc.collect()
    assert dead() is None


def test_name(make_cnn):
    def other(x):
        return x

    model = make_cnn()
    assert LogitsEnsemble([model, other]).name == f"{model.name} + other"


@pytest.mark.parametrize(
    ("models", "settings", "error", "message"),
    [
        ([], {}, TypeError, "one or more"),
        (lambda x: x, {}, TypeError, "expected a list"),
        (["a.keras"], {}, TypeError, "Got str for a model"),
        ([abs, abs], {"weights": [1]}, ValueError, "for 2 models"),
        ([abs, abs], {"weights": [0, 0]}, ValueError, "not all zero"),
        ([abs], {"weights": [-1]}, ValueError, "`weights` is out of range"),
        ([abs], {"weights": ["1"]}, TypeError, "`weights` is not a number"),
        ([abs], {"fuse": "losses"}, ValueError, "Unknown `fuse`"),
    ],
)
def test_refused(models, settings, error, message):
    with pytest.raises(error, match=message):
        LogitsEnsemble(models, **settings)


def test_members_that_do_not_fit():
    def dense(inputs, classes, name):
        layers = [keras.Input((inputs,)), keras.layers.Dense(classes)]
        return keras.Sequential(layers, name=name)

    three, four = dense(3, 2, "three"), dense(4, 2, "four")
    with pytest.raises(ValueError, match=r"got \(3,\) for `three` and \(4,\)"):
        LogitsEnsemble([three, four])
    many_classes = LogitsEnsemble([three, dense(3, 5, "five")])
    with pytest.raises(ValueError, match="got three 2, five 5"):
        many_classes(np.zeros((1, 3), "float32"))
    a, b = keras.Input((3,)), keras.Input((3,))
    two_inputs = keras.Model([a, b], keras.layers.Add()([a, b]))
    with pytest.raises(ValueError, match="takes 2 inputs"):
        LogitsEnsemble([three, two_inputs])
