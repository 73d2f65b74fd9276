"""Settings: every bad value and every pair that excludes each other."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_jsigr as kj
from keras_jsigr.config import PRESETS
from keras_jsigr.penalties import PenaltySettings


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"jacobian_weight": -1.0}, ValueError, "`jacobian_weight` is out of range"),
        ({"selective_weight": float("nan")}, ValueError, "out of range: got nan"),
        ({"selective_weight": float("inf")}, ValueError, "out of range: got inf"),
        ({"align_weight": "0.1"}, TypeError, r"is not a number: got '0.1' \(str\)"),
        ({"jacobian_weight": True}, TypeError, "is not a number: got True"),
        ({"form": "both"}, ValueError, "Unknown `form`: got 'both'"),
        ({"norm": "l2"}, ValueError, "Unknown `norm`: got 'l2'"),
        ({"estimator": "hutchinson"}, ValueError, "Unknown `estimator`"),
        ({"score": "prob"}, ValueError, "Unknown `score`: got 'prob'"),
        ({"selection": "top"}, ValueError, "Unknown `selection`: got 'top'"),
        ({"baseline": "noise"}, ValueError, "Unknown `baseline`"),
        ({"saliency_score": "lime"}, ValueError, "Unknown `saliency_score`"),
        ({"quantile": 1.5}, ValueError, "`quantile` is out of range"),
        ({"threshold": -0.5}, ValueError, "`threshold` is out of range"),
        (
            {"projections": 0},
            ValueError,
            "`projections` is out of range: got 0, expected an integer >= 1",
        ),
        ({"masks_per_step": 0}, ValueError, "`masks_per_step` is out of range"),
        (
            {"grid": 0},
            ValueError,
            "`grid` is out of range: got 0, expected an integer >= 1",
        ),
        ({"grid": 2.5}, TypeError, "`grid` is not an integer"),
        ({"seed": None}, TypeError, "`seed` is not an integer"),
        ({"seed": 2**31}, ValueError, "`seed` is out of range"),
        ({"ramp_steps": 1.5}, TypeError, "`ramp_steps` is not an integer"),
        (
            {"delay_steps": -1},
            ValueError,
            "`delay_steps` is out of range: got -1, expected an integer >= 0",
        ),
        ({"input_range": (1.0, 0.0)}, ValueError, "expected low < high"),
        ({"input_range": (0.0, float("inf"))}, ValueError, "a finite number"),
        ({"input_range": 255}, TypeError, "is not a pair"),
        ({"noise": -0.1}, ValueError, "`noise` is out of range: got -0.1"),
        ({"noise": float("inf")}, ValueError, "`noise` is out of range: got inf"),
        ({"noise": "0.1"}, TypeError, "`noise` is not a number"),
        (
            {"noise": 8.0},
            ValueError,
            "`noise` is wider than the inputs: got 8, expected at most 1",
        ),
        ({"estimator": "jvp"}, ValueError, "norm='l1' needs the rows"),
        ({"estimator": "finite_difference"}, ValueError, "Use norm='squared'"),
        (
            {"estimator": "jvp", "norm": "squared", "align_weight": 0.1},
            ValueError,
            "align_weight > 0 needs the gradient map",
        ),
    ],
)
def test_bad_settings(settings, error, message):
    with pytest.raises(error, match=message):
        PenaltySettings(**settings)


def test_round_trip_through_json():
    settings = PenaltySettings(
        jacobian_weight=0.5, selection="hard", inputs=("image",), masks_per_step=None,
        input_range=(0, 255),
    )  # fmt: skip
    config = json.loads(json.dumps(settings.get_config()))
    assert PenaltySettings.from_config(config) == settings


def test_numbers_of_numpy_become_plain_ones():
    settings = PenaltySettings(
        jacobian_weight=np.float32(0.5), grid=np.int64(4), ramp_steps=np.int32(7)
    )
    config = json.loads(json.dumps(settings.get_config()))
    assert [config[k] for k in ("jacobian_weight", "grid", "ramp_steps")] == [0.5, 4, 7]


def test_settings_of_a_newer_version():
    with pytest.raises(ValueError, match=r"Unknown settings: got \['magic'\]"):
        PenaltySettings.from_config({**PenaltySettings().get_config(), "magic": 1})


def test_what_the_objective_looks_at():
    assert PenaltySettings().uses_map
    assert not PenaltySettings(selection="all").uses_map
    assert not PenaltySettings(selective_weight=0.0).uses_map
    assert PenaltySettings(selective_weight=0.0, align_weight=1.0).uses_map
    assert PenaltySettings(selection="hard").needs_whole_map
    assert not PenaltySettings().needs_whole_map
    assert not PenaltySettings(selection="none").selects


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
