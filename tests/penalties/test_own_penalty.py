"""A user's own penalty: trained, saved, loaded, trained on and exported."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_jsigr as kj

B, D, C, RATE, WEIGHT = 6, 5, 3, 0.1, 0.3


@keras.saving.register_keras_serializable(package="tests_penalties")
class MarginGradient(kj.penalties.Penalty):
    """Half the squared input gradient of the margin, as a user would write it."""

    def __init__(self, weight=WEIGHT, name="margin_gradient", power=2):
        super().__init__(weight, name)
        self.power = power

    def __call__(self, linearization, batch):
        gradients = linearization.score_gradient(batch, "margin")
        powers = [tf.abs(gradient) ** self.power for gradient in gradients]
        return 0.5 * kj.penalties.per_example_sum(powers)

    def get_config(self):
        return {**super().get_config(), "power": self.power}


@keras.saving.register_keras_serializable(package="tests_penalties")
class MapMean(kj.penalties.Penalty):
    """Reads the maps, and no gradient."""

    needs_gradients = False
    needs_map = True

    def __call__(self, linearization, batch):
        return kj.penalties.per_example_sum(batch.maps)


X = np.random.default_rng(0).uniform(size=(B, D)).astype("float32")
Y = np.arange(B) % C


def hardened(*penalties, **settings):
    keras.utils.set_random_seed(0)
    net = keras.Sequential(
        [layers.Input((D,)), layers.Dense(4, activation="tanh"), layers.Dense(C)]
    )
    config = kj.JSIGRConfig(penalties=penalties, **settings)
    robust = kj.harden(net, 0.1, config, warmup=0, verbose=0)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    robust.compile(keras.optimizers.SGD(RATE), loss)
    return robust


ALONE = {"jacobian_weight": 0.0, "selective_weight": 0.0}


def numpy_loss(weights):
    """The task loss and the penalty of the two dense layers, in float64."""
    first, first_bias, second, second_bias = weights
    hidden = np.tanh(X @ first + first_bias)
    z = hidden @ second + second_bias
    log_p = z - z.max(1, keepdims=True)
    log_p = log_p - np.log(np.exp(log_p).sum(1, keepdims=True))
    onehot = np.eye(C)[Y]
    others = np.exp(log_p) * (1 - onehot)
    pull = onehot - others / others.sum(1, keepdims=True)
    gradient = ((pull @ second.T) * (1 - hidden**2)) @ first.T
    penalty = 0.5 * np.square(gradient).sum(1)
    return np.mean(-(onehot * log_p).sum(1) + WEIGHT * penalty), penalty.mean()


def test_a_step_is_that_of_differences():
    robust = hardened(MarginGradient(), **ALONE)
    weights = [np.float64(w) for w in robust.base.get_weights()]
    expected = []
    for index, weight in enumerate(weights):
        slope = np.zeros_like(weight)
        for place in np.ndindex(weight.shape):
            ends = []
            for sign in (1, -1):
                moved = [w.copy() for w in weights]
                moved[index][place] += sign * 1e-6
                ends.append(numpy_loss(moved)[0])
            slope[place] = (ends[0] - ends[1]) / 2e-6
        expected.append(weight - RATE * slope)
    logs = robust.train_on_batch(X, Y, return_dict=True)
    loss, penalty = numpy_loss(weights)
    assert logs["loss"] == pytest.approx(loss, rel=1e-5)
    assert logs["margin_gradient_penalty"] == pytest.approx(penalty, rel=1e-5)
    for found, wanted in zip(robust.base.get_weights(), expected, strict=True):
        np.testing.assert_allclose(found, wanted, atol=2e-6)


def test_it_is_saved_loaded_trained_on_and_exported(tmp_path):
    robust = hardened(MarginGradient(power=1))
    robust.fit(X, Y, batch_size=B, verbose=0)
    robust.margin_gradient_weight.assign(0.7)
    robust.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    assert loaded.config == robust.config
    assert loaded.penalties[-1].power == 1
    assert loaded.penalty_weights == robust.penalty_weights
    assert loaded.penalty_weights["margin_gradient"] == pytest.approx(0.7)
    for model in (robust, loaded):
        history = model.fit(X, Y, batch_size=B, shuffle=False, verbose=0).history
        assert history["margin_gradient_penalty"][0] > 0
    for a, b in zip(robust.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    loaded.export(tmp_path / "served", verbose=0)
    served = tf.saved_model.load(tmp_path / "served").signatures["logits"]
    (name,) = served.structured_input_signature[1]
    np.testing.assert_allclose(
        served(**{name: tf.constant(X)})["logits"], loaded.logits(X), atol=1e-5
    )
    card = kj.serving.read_model_card(tmp_path / "served")
    assert card["settings"]["margin_gradient_weight"] == pytest.approx(0.7)


def test_a_penalty_without_gradients_gets_the_maps():
    maps = kj.LiveMaps(samples=None, grid=2)
    robust = hardened(MapMean(0.0, "map_mean"), live_maps=maps, **ALONE)
    logs = robust.train_on_batch(X, Y, return_dict=True)
    assert 0.0 < logs["map_mean_penalty"] < D
    assert logs["loss"] == pytest.approx(logs["task_loss"])


def test_penalties_beside_those_in_input_space():
    """Directional estimators record no gradients; one's own penalty may need them."""
    settings = {"estimator": "jvp", "norm": "squared", "selection": "all"}
    logs = hardened(MarginGradient(), **settings).train_on_batch(X, Y, return_dict=True)
    alone = hardened(MarginGradient(), **ALONE).train_on_batch(X, Y, return_dict=True)
    name = "margin_gradient_penalty"
    assert logs[name] == pytest.approx(alone[name], rel=1e-5)
    assert logs["fused_penalty"] > 0
