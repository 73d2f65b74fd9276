"""One SGD step against weights computed in NumPy, on one and on two devices."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

import keras_jsigr as kj
from keras_jsigr import JSIGRModel, PenaltySettings

B, D, C, RATE = 8, 5, 3, 0.1


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    return {
        "kernel": rng.standard_normal((D, C)),
        "bias": rng.standard_normal(C),
        "x": rng.uniform(0, 1, (B, D)),
        "y": rng.integers(0, C, B),
        "w": rng.uniform(0.2, 2.0, B),
    }


def numpy_loss(kernel, bias, data, settings, sample_weight):
    """The objective of design, per example, in float64."""
    z = data["x"] @ kernel + bias
    shifted = z - z.max(1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    p, onehot = np.exp(log_p), np.eye(C)[data["y"]]
    task = -(onehot * log_p).sum(1)
    columns = np.square(kernel).sum(1)
    l1 = settings.norm == "l1"
    if settings.form == "fused":
        jacobian = np.sqrt(columns).sum() if l1 else 0.5 * columns.sum()
        selective = jacobian  # selection="all"
    else:
        if settings.score == "log_prob":
            cotangent = onehot - p
        elif settings.score == "logit":
            cotangent = onehot
        else:
            others = np.where(onehot > 0, 0.0, np.exp(shifted))
            cotangent = onehot - others / others.sum(1, keepdims=True)
        g = cotangent @ kernel.T
        if settings.form == "guided":
            deviations = settings.spread * np.sqrt(columns)
            folded = stats.foldnorm(np.abs(g) / deviations, scale=deviations).mean()
            squares = 0.5 * (np.square(g) + np.square(deviations)).sum(1)
            jacobian = selective = folded.sum(1) if l1 else squares
        else:
            jacobian = 0.5 * columns.sum()
            selective = np.abs(g).sum(1) if l1 else 0.5 * np.square(g).sum(1)
    penalty = (
        settings.jacobian_weight * jacobian + settings.selective_weight * selective
    )
    return np.mean(sample_weight * (task + penalty))


def numpy_step(data, settings, sample_weight):
    """Central differences of the float64 loss: independent of any tape."""
    parameters = [data["kernel"].copy(), data["bias"].copy()]
    stepped = []
    for index, parameter in enumerate(parameters):
        gradient = np.zeros_like(parameter)
        for position in np.ndindex(parameter.shape):
            ends = []
            for sign in (1, -1):
                moved = [q.copy() for q in parameters]
                moved[index][position] += sign * 1e-6
                ends.append(numpy_loss(*moved, data, settings, sample_weight))
            gradient[position] = (ends[0] - ends[1]) / 2e-6
        stepped.append(parameter - RATE * gradient)
    return stepped


def linear_model(data, settings):
    net = keras.Sequential([keras.Input((D,)), keras.layers.Dense(C)])
    net.layers[0].set_weights([data["kernel"], data["bias"]])
    robust = JSIGRModel(net, settings)
    robust.compile(
        keras.optimizers.SGD(RATE),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    return robust


CASES = {
    "fused l1": {"norm": "l1"},
    "fused squared": {"norm": "squared"},
    "guided l1 log_prob": {"form": "guided", "norm": "l1", "spread": 0.5},
    "guided squared margin": {"form": "guided", "norm": "squared", "score": "margin"},
    "separate l1 log_prob": {"form": "separate", "norm": "l1"},
    "separate squared log_prob": {"form": "separate", "norm": "squared"},
    "separate squared margin": {
        "form": "separate",
        "norm": "squared",
        "score": "margin",
    },
    "separate l1 logit": {"form": "separate", "norm": "l1", "score": "logit"},
    "jacobian only": {"norm": "squared", "selective_weight": 0.0},
    "selective only": {"form": "separate", "norm": "l1", "jacobian_weight": 0.0},
}


@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("devices", [1, 2])
@pytest.mark.parametrize("case", CASES)
def test_one_step_equals_numpy(data, case, devices, weighted):
    defaults = {"jacobian_weight": 0.3, "selective_weight": 0.2}
    settings = PenaltySettings(
        **{**defaults, **CASES[case]}, estimator="exact", selection="all"
    )
    strategy = (
        tf.distribute.MirroredStrategy(
            ["CPU:0", "CPU:1"],
            # Several strategies in one process would share collective instances.
            cross_device_ops=tf.distribute.ReductionToOneDevice(),
        )
        if devices == 2
        else tf.distribute.get_strategy()
    )
    with strategy.scope():
        robust = linear_model(data, settings)
    sample_weight = data["w"] if weighted else np.ones(B)
    dataset = tf.data.Dataset.from_tensors(
        (data["x"].astype("float32"), data["y"], sample_weight.astype("float32"))
    )
    robust.fit(dataset, epochs=1, shuffle=False, verbose=0)
    expected = numpy_step(data, settings, sample_weight)
    for value, wanted in zip(robust.base.get_weights(), expected, strict=True):
        np.testing.assert_allclose(value, wanted, atol=2e-6)


def test_penalties_do_not_depend_on_the_batch_size(data):
    """The mean of a penalty over two half batches is the one over the whole."""
    settings = PenaltySettings(estimator="exact", selection="all", form="separate")
    reported = []
    for size in (B, B // 2):
        robust = linear_model(data, settings)
        robust.optimizer.learning_rate = 0.0
        history = robust.fit(
            data["x"].astype("float32"), data["y"], batch_size=size, verbose=0
        ).history
        reported.append([history[f"{t}_penalty"][0] for t in ("jacobian", "selective")])
    np.testing.assert_allclose(*reported, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("cached", [False, True])
def test_a_replica_without_examples_adds_nothing(data, cached):
    """Nine examples in batches of eight leave one for two devices."""
    x = np.concatenate([data["x"], data["x"][:1] / 2]).astype("float32")
    y = np.append(data["y"], 0)
    two = tf.distribute.MirroredStrategy(
        ["CPU:0", "CPU:1"], cross_device_ops=tf.distribute.ReductionToOneDevice()
    )
    histories = []
    for strategy in (tf.distribute.get_strategy(), two):
        settings = {"estimator": "exact", "form": "separate", "selection": "all"}
        with strategy.scope():
            net = linear_model(data, None).base
            if cached:
                cache = kj.PerturbationCache.build(net, x, y, verbose=0)
                settings |= {"selection": "soft", "align_weight": 0.1, "maps": cache}
            robust = kj.harden(net, verbose=0, probe=False, **settings)
            robust.compile(
                keras.optimizers.SGD(0.0),
                keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            )
        fit = robust.fit(x, y, batch_size=B, shuffle=False, verbose=0)
        assert all(np.isfinite(weight).all() for weight in robust.get_weights())
        histories.append(fit.history)
    assert len(histories[0]) == (6 if cached else 4)
    for name, value in histories[0].items():
        np.testing.assert_allclose(histories[1][name], value, rtol=1e-5)


def test_reported_loss_is_the_objective(data):
    settings = PenaltySettings(
        estimator="exact", selection="all", jacobian_weight=0.3, selective_weight=0.2
    )
    robust = linear_model(data, settings)
    history = robust.fit(data["x"].astype("float32"), data["y"], verbose=0).history
    wanted = numpy_loss(data["kernel"], data["bias"], data, settings, np.ones(B))
    np.testing.assert_allclose(history["loss"][0], wanted, rtol=1e-5)
    total = (
        history["task_loss"][0]
        + 0.3 * history["jacobian_penalty"][0]
        + 0.2 * history["selective_penalty"][0]
    )
    np.testing.assert_allclose(total, wanted, rtol=1e-5)


def test_weights_are_variables_and_ramp_counts_optimizer_steps(data):
    """A ramp of zero weight is plain training; assigning to a weight acts at once."""
    x, y = data["x"].astype("float32"), data["y"]
    settings = PenaltySettings(estimator="exact", selection="all", delay_steps=1)
    robust, plain = linear_model(data, settings), linear_model(data, settings)
    plain.jacobian_weight.assign(0.0)
    plain.selective_weight.assign(0.0)
    for model in (robust, plain):
        model.train_on_batch(x, y)
    for a, b in zip(robust.get_weights(), plain.get_weights(), strict=True):
        if a.shape:
            np.testing.assert_array_equal(a, b)  # the first step is delayed
    for model in (robust, plain):
        model.train_on_batch(x, y)
    change = robust.base.get_weights()[0] - plain.base.get_weights()[0]
    assert np.abs(change).max() > 1e-4


def test_a_loss_that_divides_by_the_weights_takes_the_penalty_along(data):
    """All weights alike: neither the loss nor the penalty depends on them."""
    settings = PenaltySettings(selection="all", estimator="exact")
    loss = keras.losses.SparseCategoricalCrossentropy(
        from_logits=True, reduction="mean_with_sample_weight"
    )
    found = []
    for weight in (1.0, 0.01):
        robust = linear_model(data, settings)
        robust.compile(keras.optimizers.SGD(RATE), loss)
        found.append(
            robust.train_on_batch(
                data["x"].astype("float32"),
                data["y"],
                sample_weight=np.full(B, weight, "float32"),
                return_dict=True,
            )
        )
    assert found[0]["jacobian_penalty"] > 0.01
    for name, value in found[0].items():
        np.testing.assert_allclose(found[1][name], value, rtol=1e-5, err_msg=name)
