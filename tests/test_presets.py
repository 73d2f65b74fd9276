"""Presets are arguments of `harden`, scaled to a radius."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_jsigr as kj
from keras_jsigr.presets import PRESETS


def settings_of(name, **threat):
    return kj.PenaltySettings(**kj.preset(name, **threat))


def test_an_unknown_name_is_refused():
    with pytest.raises(ValueError, match=r"Unknown `preset`: got 'best', expected one"):
        kj.preset("best", epsilon=0.1)


@pytest.mark.parametrize("epsilon", [0.0, -0.1, float("nan")])
def test_a_radius_is_needed(epsilon):
    with pytest.raises(ValueError, match=r"`epsilon` is out of range: .* > 0"):
        kj.preset("fast", epsilon=epsilon)


def test_a_range_is_needed():
    with pytest.raises(ValueError, match="input_range"):
        kj.preset("fast", epsilon=0.1, input_range=(1.0, 0.0))


@pytest.mark.parametrize("name", PRESETS)
def test_the_step_is_taken_within_the_radius(name):
    settings = settings_of(name, epsilon=8.0, input_range=(0, 255))
    assert settings.noise == 8.0
    assert settings.input_range == (0.0, 255.0)


@pytest.mark.parametrize("name", PRESETS)
def test_units_do_not_matter(name):
    ones = settings_of(name, epsilon=0.1)
    bytes_ = settings_of(name, epsilon=25.5, input_range=(0.0, 255.0))
    assert bytes_.jacobian_weight == pytest.approx(ones.jacobian_weight)
    assert bytes_.selective_weight == pytest.approx(ones.selective_weight)


@pytest.mark.parametrize("name", PRESETS)
def test_both_terms_are_there_at_any_radius(name):
    settings = settings_of(name, epsilon=4 / 255)
    assert settings.jacobian_weight > 0
    assert settings.selects


def test_balanced_is_the_growth_of_the_loss():
    """At a linear model, with every pixel selected, R_S is that of its worst point."""
    epsilon = 0.01
    kernel = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    x, y = tf.random.stateless_uniform((8, 6), (0, 1)), tf.range(8) % 3

    def loss(points):
        return tf.nn.sparse_softmax_cross_entropy_with_logits(y, points @ kernel)

    with tf.GradientTape() as tape:
        tape.watch(x)
        value = loss(x)
    slope = tape.gradient(value, x)
    growth = loss(x + epsilon * tf.sign(slope)) - value
    weight = kj.preset("balanced", epsilon=epsilon)["selective_weight"]
    first_order = weight / 1.2 * tf.reduce_sum(tf.abs(slope), axis=1)
    np.testing.assert_allclose(growth, first_order, rtol=0.05)


@pytest.mark.parametrize("name", PRESETS)
def test_a_model_trains_with_it(name):
    keras.utils.set_random_seed(0)
    net = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(4, 3, activation="silu"),
            keras.layers.Flatten(),
            keras.layers.Dense(3),
        ]
    )
    x = np.random.default_rng(0).uniform(size=(16, 8, 8, 1)).astype(np.float32)
    y = np.arange(16) % 3
    arguments = kj.preset(name, epsilon=0.1)
    if name == "faithful":
        with pytest.raises(ValueError, match="needs whole maps"):
            kj.harden(net, **arguments, verbose=0)
        arguments["maps"] = kj.PerturbationCache.build(net, x, y, verbose=0)
    robust = kj.harden(net, **arguments, verbose=0)
    robust.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    history = robust.fit(x, y, epochs=2, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    assert history["jacobian_penalty"][-1] > 0


@pytest.mark.parametrize("name", PRESETS)
def test_a_forgotten_range_is_noticed(name):
    with pytest.raises(ValueError, match=r"such as input_range=\(0, 255\)"):
        kj.preset(name, epsilon=8)
