"""Shares of the penalties in loss and gradient, and the warnings about them."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_jsigr as kj
from keras_jsigr.callbacks import PenaltyMonitor
from keras_jsigr.callbacks.penalty_monitor import (
    advice,
    effective_weights,
    gradient_norms_of,
    gradient_shares,
    loss_shares,
    score_advice,
)


def seeded(*data):
    return (*map(tf.constant, data), tf.constant([0, 0]))


def linear(**kwargs):
    """One weight matrix, logits `x W`: both gradients are known."""
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, use_bias=False)])
    model.set_weights([np.array([[1.0, -2.0], [0.5, 3.0]])])
    config = kj.JSIGRConfig(selective_target="score", estimator="exact", norm="squared", **kwargs)
    robust = kj.harden(model, recipe=config, warmup=0, verbose=0)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    robust.compile("sgd", loss)
    return robust


def test_gradient_norms_of_a_linear_model():
    robust = linear(jacobian_weight=0.5, selective_weight=0.0)
    x, y = np.array([[0.2, 0.4], [0.9, 0.1]], "float32"), np.array([0, 1])
    norms = gradient_norms_of(robust)(*seeded(x, y))
    w = robust.base.get_weights()[0].astype("float64")
    # R_J = 1/2 ||W||_F^2, so its gradient is W; that of the cross entropy is known.
    z = x @ w
    p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    task = x.T @ (p - np.eye(2)[y]) / 2
    assert set(norms) == {"task", "jacobian"}
    assert norms["jacobian"] == pytest.approx(np.linalg.norm(w), rel=1e-5)
    assert norms["task"] == pytest.approx(np.linalg.norm(task), rel=1e-5)


def test_norms_are_those_of_a_training_step(data, hardened):
    x, y = data
    robust = hardened(selective_weight=0.0, jacobian_weight=0.1)
    before = [v.numpy() for v in robust.variables]
    norms = gradient_norms_of(robust)(*seeded(x, y))
    for variable, value in zip(robust.variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)
    # The step of SGD(0.05) is at most the sum of both pulls, at least the difference.
    robust.train_on_batch(x, y)
    trained = [np.array(v) for v in robust.trainable_variables]
    ids = {id(v): i for i, v in enumerate(robust.variables)}
    moved = [
        (before[ids[id(v)]] - after) / 0.05
        for v, after in zip(robust.trainable_variables, trained, strict=True)
    ]
    length = np.sqrt(sum(np.sum(part**2) for part in moved))
    pulls = norms["task"], 0.1 * norms["jacobian"]
    assert abs(pulls[0] - pulls[1]) - 1e-4 <= length <= sum(pulls) + 1e-4


def test_report(data, hardened, fit):
    robust = hardened(jacobian_weight=0.05, selective_weight=0.05)
    history = fit(robust, PenaltyMonitor(*data, every=2), epochs=3).history
    names = ("task", "jacobian", "selective")
    shares = np.array([history[f"{name}_gradient_share"] for name in names])
    assert shares.shape == (3, 3)
    np.testing.assert_allclose(shares.sum(0), 1.0, rtol=1e-6)
    loss = history["jacobian_loss_share"]
    part = 0.05 * history["jacobian_penalty"][0] / history["loss"][0]
    assert loss[0] == pytest.approx(part, rel=1e-4)
    # Measured in the first and the second epoch, repeated in the third.
    assert loss[0] != loss[1] == loss[2]


def warnings_of(caught):
    return [str(w.message) for w in caught if w.category is UserWarning]


def test_a_penalty_that_does_nothing(data, hardened, fit):
    for examples in (True, False):
        robust = hardened(jacobian_weight=1e-7, selective_weight=0.0)
        monitor = PenaltyMonitor(*(data if examples else ()))
        with pytest.warns(UserWarning, match="jacobian penalty does nothing") as caught:
            fit(robust, monitor, epochs=3)
        (text,) = warnings_of(caught)
        assert "Raise jacobian_weight (now 1e-07)" in text


def test_nothing_is_said_of_a_mean_of_few_draws(data, hardened, fit):
    drawn = hardened(selective_weight=1e-7)
    fit(drawn, PenaltyMonitor(), epochs=1)  # a warning would be an error
    whole = hardened(selective_weight=1e-7, live_maps=kj.LiveMaps(samples=None))
    with pytest.warns(UserWarning, match="selective penalty does nothing"):
        fit(whole, PenaltyMonitor(), epochs=1)


def test_a_penalty_that_drowns_the_task(data, hardened, fit):
    robust = hardened(jacobian_weight=50.0, selective_weight=0.0)
    with pytest.warns(UserWarning, match="drown the task loss") as caught:
        fit(robust, PenaltyMonitor(*data), epochs=2)
    (text,) = warnings_of(caught)
    assert "Lower jacobian_weight (now 50)" in text


def test_no_warning_while_penalties_grow_in(data, hardened, fit):
    robust = hardened(warmup=1000, jacobian_weight=1e-3, selective_weight=0.0)
    history = fit(robust, PenaltyMonitor(*data), epochs=1).history
    assert 0 < history["jacobian_gradient_share"][0] < 1e-3


JACOBIAN, SELECTIVE = kj.JSIGRConfig(selective_target="score").build_penalties()


def test_suggested_weight_gives_the_share_it_says():
    norms = {"task": 2.0, "jacobian": 3.0, "selective": 1.0}
    weights = {"jacobian": 1e-5, "selective": 0.1}
    penalties = [JACOBIAN, SELECTIVE]
    shares = gradient_shares(norms, weights)
    found = advice(shares, penalties, weights, "gradient")
    text = found["jacobian does nothing"]
    wanted = float(text.split("to about ")[1].split(". ")[0])
    share = gradient_shares(norms, {**weights, "jacobian": wanted})["jacobian"]
    assert share == pytest.approx(0.1, rel=0.05)
    weights["jacobian"] = 100.0
    shares = gradient_shares(norms, weights)
    text = advice(shares, penalties, weights, "gradient")["too large"]
    wanted = float(text.split("to about ")[1].split(", or")[0])
    share = gradient_shares(norms, {**weights, "jacobian": wanted})["jacobian"]
    assert share == pytest.approx(0.5, rel=0.05)
    shares = {"task": 0.6, "jacobian": 0.3, "selective": 0.1}
    assert advice(shares, penalties, weights, "gradient") == {}


def test_advice_names_the_weights_of_any_penalty():
    class Own(kj.penalties.Penalty):
        def __init__(self):
            super().__init__(0.1, "own")

        def __call__(self, linearization, batch):
            return 0.0

    fused = kj.penalties.DirectionalNorm(0.1, 0.2)
    for penalty, setting in (
        (JACOBIAN, "jacobian_weight"),
        (Own(), "own_weight"),
        (fused, "jacobian_weight and selective_weight"),
    ):
        name = penalty.name
        for share, verb in ((1e-5, "Raise"), (0.95, "Lower")):
            shares = {"task": 1.0 - share, name: share}
            (text,) = advice(shares, [penalty], {name: 0.5}, "loss").values()
            assert f"{verb} {setting}" in text
        shares = {"task": 1.0, name: 0.0}
        (text,) = advice(shares, [penalty], {name: 0.5}, "loss").values()
        assert "No weight can change that" in text


def test_advice_on_the_score():
    for settings, weight, says in (
        ({"selective_target": "score"}, 0.1, True),
        ({"selective_target": "mixed"}, 0.1, True),
        ({"selective_target": "score"}, 0.0, False),
        ({"selective_target": "score", "class_score": "margin"}, 0.1, False),
        ({"selective_target": "jacobian"}, 0.1, False),
    ):
        penalties = kj.JSIGRConfig(**settings).build_penalties()
        weights = {penalty.name: weight for penalty in penalties}
        assert bool(score_advice(penalties, weights, 0.01)) == says


def by_heart(score):
    """A model that is sure of its four images, in an epoch that moves nothing."""
    net = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, use_bias=False)])
    net.set_weights([np.array([[9.0, -9.0], [-9.0, 9.0]])])
    config = kj.JSIGRConfig(
        selective_target="score",
        class_score=score,
        selection="all",
        jacobian_weight=0.0,
    )
    robust = kj.harden(net, recipe=config, warmup=0, verbose=0)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    robust.compile(keras.optimizers.SGD(0.0), loss)
    x, y = np.repeat(np.eye(2, dtype="float32"), 2, axis=0), np.array([0, 0, 1, 1])
    return robust, x, y


def test_images_learned_by_heart():
    robust, x, y = by_heart("log_prob")
    with pytest.warns(UserWarning, match="by heart") as caught:
        robust.fit(x, y, epochs=2, callbacks=[PenaltyMonitor()], verbose=0)
    (text,) = warnings_of(caught)
    assert "class_score='margin'" in text


def test_other_small_losses_tell_nothing_of_it():
    for kind in ("CategoricalFocalCrossentropy", "BinaryCrossentropy"):
        robust, x, y = by_heart("log_prob")
        loss = getattr(keras.losses, kind)(from_logits=True)
        robust.compile(keras.optimizers.SGD(0.0), loss)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            history = robust.fit(x, np.eye(2)[y], callbacks=[PenaltyMonitor()], verbose=0)
        assert history.history["task_loss"][0] < 0.05
        assert not any("by heart" in text for text in warnings_of(caught))


def test_the_gradient_of_the_margin_outlasts_that_of_the_log_probability():
    norms = {}
    for score in ("log_prob", "margin"):
        robust, *data = by_heart(score)
        norms[score] = gradient_norms_of(robust)(*seeded(*data))
    assert norms["log_prob"]["selective"] < 1e-2 * norms["margin"]["selective"]


def test_shares_at_zero():
    assert loss_shares({}, {"jacobian": 1.0}) == {}
    logs = {"task_loss": 0.0, "jacobian_penalty": 0.0, "selective_penalty": -1.0}
    weights = {"jacobian": 1.0, "selective": 1.0}
    assert loss_shares(logs, weights) == {"jacobian": 0.0, "selective": 0.0}
    assert gradient_shares({"task": 0.0}, {}) == {"task": 0.0}


@pytest.mark.slow
def test_on_two_devices(data, hardened, fit):
    devices, how = ["CPU:0", "CPU:1"], tf.distribute.ReductionToOneDevice()
    with tf.distribute.MirroredStrategy(devices, cross_device_ops=how).scope():
        robust = hardened(jacobian_weight=0.05, selective_weight=0.05)
    history = fit(robust, PenaltyMonitor(*data), epochs=1).history
    assert effective_weights(robust)["jacobian"] == pytest.approx(0.05)
    assert 0.1 < history["task_gradient_share"][0] < 1.0


def test_warmup_and_penalty_factor_count(hardened):
    robust = hardened(jacobian_weight=0.5, warmup=4)
    robust.penalty_factor.assign(0.25)
    robust.steps_taken.assign(2)
    progress = robust.warmup_progress()
    assert 0.0 < progress < 1.0
    weight = effective_weights(robust)["jacobian"]
    assert weight == pytest.approx(0.125 * progress)


def test_shares_are_of_the_epoch_and_not_of_the_next_factor(data, hardened):
    robust = hardened(jacobian_weight=50.0, selective_weight=0.0)
    constraint = kj.callbacks.AccuracyConstraint(reference=0.9)
    with pytest.warns(UserWarning, match="drown the task loss"):
        history = robust.fit(
            *data,
            epochs=4,
            validation_data=data,
            callbacks=[constraint, PenaltyMonitor()],
            verbose=0,
        ).history
    factors = np.array(history["penalty_factor"])
    assert len(set(factors)) > 1
    penalty = factors * 50.0 * np.array(history["jacobian_penalty"])
    share = penalty / (penalty + np.array(history["task_loss"]))
    np.testing.assert_allclose(history["jacobian_loss_share"], share, rtol=1e-5)


def test_penalty_without_reverse_mode(data, hardened):
    robust = hardened(estimator="finite_difference", norm="squared")
    norms = gradient_norms_of(robust)(*seeded(*data))
    assert set(norms) == {"task", "fused"}
    assert norms["fused"] > 0


def test_wrong_use(data, plain, fit):
    with pytest.raises(ValueError, match="needs inputs and labels"):
        PenaltyMonitor(data[0])
    with pytest.raises(ValueError, match="needs a hardened model"):
        fit(plain(), PenaltyMonitor())


@pytest.mark.slow
def test_layers_frozen_between_two_trainings(data, hardened):
    x, y = data
    robust = hardened(jacobian_weight=0.1, selection="all")
    robust.compile(keras.optimizers.SGD(0.0), robust.loss)

    def shares(monitor):
        history = robust.fit(x, y, callbacks=[monitor], verbose=0).history
        return history["jacobian_gradient_share"]

    kept = PenaltyMonitor(x, y)
    before = shares(kept)
    next(f for f in robust.base.layers if f.weights).trainable = False
    robust.compile(keras.optimizers.SGD(0.0), robust.loss)
    after = shares(kept)
    assert after == pytest.approx(shares(PenaltyMonitor(x, y)))
    assert after != pytest.approx(before, rel=0.01)


def test_a_loss_scale_that_has_grown(data):
    """Penalties at weight one leave float16 long before the training does."""
    keras.config.set_dtype_policy("mixed_float16")
    keras.utils.set_random_seed(0)
    layers = [
        keras.layers.Conv2D(8, 3, activation="silu"),
        keras.layers.Flatten(),
        keras.layers.Dense(3, activation="softmax"),
    ]
    model = keras.Sequential([keras.Input((8, 8, 1)), *layers])
    robust = kj.harden(model, recipe=kj.JSIGRConfig(), warmup=0, verbose=0)
    robust.compile("sgd", "sparse_categorical_crossentropy")
    x, y = map(tf.constant, data)
    norms = gradient_norms_of(robust)
    robust.optimizer.build(robust.trainable_variables)
    expected = norms(x, y, tf.constant([0, 0]))
    robust.optimizer.dynamic_scale.assign(2.0**19)
    found = norms(x, y, tf.constant([0, 0]))
    weights = effective_weights(robust)
    assert gradient_shares(found, weights) == pytest.approx(
        gradient_shares(expected, weights), rel=0.02
    )
