"""`AccuracyConstraint`: the accuracy against NumPy, the reference, the rule."""

import math
from contextlib import nullcontext

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_jsigr as kj
from keras_jsigr.callbacks import AccuracyConstraint
from keras_jsigr.callbacks.accuracy_constraint import (
    HIGHEST,
    LOWEST,
    clearly_trained,
    next_factor,
    right_answers,
    standard_error,
)
from keras_jsigr.core.heads import Head
from keras_jsigr.serving.model_card import model_card

N, C, BATCH = 64, 3, 32


@pytest.fixture(scope="module")
def data():
    """Blobs that a linear model separates well, not wholly."""
    rng = np.random.default_rng(0)
    y = np.arange(N) % C
    centres = np.eye(3)[y][:, [0, 1, 2, 0, 1, 2]]
    x = 0.3 + 0.25 * centres + 0.2 * rng.standard_normal((N, 6))
    return np.clip(x, 0, 1).astype("float32"), y


def net():
    keras.utils.set_random_seed(3)
    return keras.Sequential(
        [layers.Input((6,)), layers.Dense(8, activation="silu"), layers.Dense(C)]
    )


def compiled(model, rate=0.01, **kwargs):
    """Eager where nothing else is asked for: tracing costs more than these steps."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    kwargs = {"loss": loss, "run_eagerly": True, **kwargs}
    model.compile(keras.optimizers.Adam(rate), **kwargs)
    return model


def harden(model, warmup=0, **settings):
    settings = {"selection": "all", "check_gradients": False, **settings}
    return kj.harden(
        model, recipe=kj.JSIGRConfig(epsilon=0.1, **settings), warmup=warmup, verbose=0
    )


@pytest.fixture(scope="module")
def trained(data):
    """The weights of a plain network that learned its task, and its accuracy."""
    model = compiled(net(), 0.05, run_eagerly=False)
    model.fit(*data, epochs=15, batch_size=16, verbose=0)
    share = accuracy(model, *data)
    assert 0.75 < share < 1.0
    return model.get_weights(), share


def plain(trained):
    model = net()
    model.set_weights(trained[0])
    return model


def accuracy(model, x, y):
    return float(np.mean(model.predict(x, verbose=0).argmax(-1) == y))


def fit(robust, data, callback=None, **kwargs):
    kwargs = {"epochs": 2, "shuffle": False, "verbose": 0, **kwargs}
    if "validation_split" not in kwargs:
        kwargs.setdefault("validation_data", data)
    callbacks = [*kwargs.pop("callbacks", []), callback or AccuracyConstraint()]
    return robust.fit(*data, batch_size=BATCH, callbacks=callbacks, **kwargs).history


# The accuracy


def test_exclusive_classes():
    rng = np.random.default_rng(0)
    z, y = rng.standard_normal((23, C)).astype("float32"), rng.integers(0, C, 23)
    for labels in (y, y[:, None], np.eye(C, dtype="float32")[y], [y]):
        right = right_answers(z, labels, "softmax", Head("linear"))
        np.testing.assert_array_equal(right, z.argmax(-1) == y)


def test_independent_classes():
    for units in (1, C):
        z = np.random.default_rng(0).standard_normal((23, units)).astype("float32")
        y = np.random.default_rng(1).integers(0, 2, (23, units))
        expected = np.mean((z > 0) == (y == 1), axis=-1)
        p = tf.nn.sigmoid(z)
        for outputs, head in ((z, Head("linear")), (p, Head("sigmoid", None))):
            right = right_answers(outputs, y, "sigmoid", head)
            np.testing.assert_allclose(right, expected, rtol=1e-6)


class Batches(keras.utils.PyDataset):
    def __init__(self, x, y):
        super().__init__()
        self.x, self.y = x, y

    def __len__(self):
        return 2

    def __getitem__(self, index):
        part = slice(8 * index, 8 * index + 8)
        return self.x[part], self.y[part]


@pytest.mark.parametrize("kind", ["split", "repeated", "PyDataset", "positional"])
def test_validation_of_any_kind(data, trained, kind):
    x, y = data
    robust = compiled(harden(plain(trained)))
    common = {
        "epochs": 1,
        "shuffle": False,
        "verbose": 0,
        "callbacks": AccuracyConstraint(),
    }
    held = (x[48:], y[48:])
    dataset = tf.data.Dataset.from_tensor_slices(held).batch(5)
    if kind == "split":
        robust.fit(x, y, BATCH, validation_split=0.25, **common)
    elif kind == "positional":
        robust.fit(x[:48], y[:48], BATCH, 1, 0, [common["callbacks"]], 0.0, held, False)
    else:
        if kind == "repeated":
            common["validation_steps"] = 4
        held = {
            "arrays": held,
            "tf.data": dataset,
            "repeated": dataset.repeat(),
            "PyDataset": Batches(*held),
        }[kind]
        robust.fit(x[:48], y[:48], BATCH, validation_data=held, **common)
    expected = accuracy(plain(trained), x[48:], y[48:])
    assert float(robust.reference_accuracy) == pytest.approx(expected)
    assert not robust.base.compiled


def test_weights_of_examples_and_classes(data, trained):
    """The constraint counts every validation example once, whatever it weighs."""
    robust = compiled(harden(plain(trained)), metrics=["accuracy"])
    weights = np.linspace(0.0, 2.0, N).astype("float32")
    history = fit(
        robust,
        data,
        validation_data=(*data, weights),
        class_weight={0: 1.0, 1: 2.0, 2: 0.5},
    )
    np.testing.assert_allclose(
        history["accuracy_slack"],
        np.array(history["val_accuracy"]) - trained[1] + 0.02,
        atol=1e-6,
    )
    assert set(robust.evaluate(*data, verbose=0, return_dict=True)) == {
        "loss",
        "accuracy",
    }


@pytest.mark.parametrize("ignored", [pytest.param(-1, marks=pytest.mark.slow), 0])
def test_examples_that_the_loss_ignores_do_not_count(data, trained, ignored):
    x, y = data
    some = np.where(np.arange(N) % 4 == 0, ignored, y)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=ignored)
    robust = compiled(harden(plain(trained)), loss=loss)
    history = fit(robust, (x, some))
    seen = some != ignored
    reference = accuracy(plain(trained), x[seen], y[seen])
    assert float(robust.reference_accuracy) == pytest.approx(reference)
    slack = accuracy(robust, x[seen], y[seen]) - reference + 0.02
    assert history["accuracy_slack"][-1] == pytest.approx(slack, abs=1e-6)


def test_validation_data_that_cannot_be(data, trained):
    robust = compiled(harden(plain(trained)))
    for given, message in ((None, "got no validation data, expected"), (iter([]), "a generator")):
        with pytest.raises(ValueError, match=message):
            fit(robust, data, validation_data=given)
    assert int(robust.steps_taken) == 0


def test_a_split_of_what_cannot_be_cut(data, trained):
    robust = compiled(harden(plain(trained)))
    dataset = tf.data.Dataset.from_tensor_slices(data).batch(BATCH)
    with pytest.raises(ValueError, match="Pass validation_data= instead"):
        robust.fit(dataset, validation_split=0.5, callbacks=AccuracyConstraint(), verbose=0)


# The reference


def test_reference_is_the_base_when_fit_starts(data, trained):
    robust = compiled(harden(plain(trained)))
    assert model_card(robust, [], {})["settings"]["reference_accuracy"] is None
    history = fit(robust, data, epochs=3)
    assert float(robust.reference_accuracy) == pytest.approx(trained[1])
    slack = accuracy(robust, *data) - (trained[1] - 0.02)
    assert history["accuracy_slack"][-1] == pytest.approx(slack, abs=1e-6)
    settings = model_card(robust, [], {})["settings"]
    assert settings["penalty_factor"] == pytest.approx(float(robust.penalty_factor))
    assert settings["penalty_factor"] != history["penalty_factor"][-1]
    assert settings["reference_accuracy"] == pytest.approx(trained[1])
    fit(robust, data)  # measured once: the base has moved since
    assert float(robust.reference_accuracy) == pytest.approx(trained[1])


def test_reference_is_a_number(data):
    robust = compiled(harden(net()))
    history = fit(robust, data, AccuracyConstraint(reference=0.8))
    slack = accuracy(robust, *data) - 0.78
    assert history["accuracy_slack"][-1] == pytest.approx(slack, abs=1e-6)


def test_reference_is_a_plain_model(data, trained, tmp_path):
    twin = keras.Sequential([plain(trained), layers.Softmax()])
    robust = compiled(harden(net()))
    fit(robust, data, AccuracyConstraint(reference=twin))
    assert float(robust.reference_accuracy) == pytest.approx(trained[1])
    shared = {id(v) for v in twin.variables}
    assert not shared & {id(v) for v in robust.variables}
    robust.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    assert float(loaded.reference_accuracy) == pytest.approx(trained[1])


def test_an_untrained_base_is_no_reference(data):
    model = net()
    model.layers[-1].set_weights([np.zeros((8, C)), np.array([2.0, 0.0, 0.0])])
    robust = compiled(harden(model))
    before = robust.base.get_weights()
    with pytest.raises(ValueError, match="Train the plain model first"):
        fit(robust, data)
    for a, b in zip(before, robust.base.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_an_untrained_reference_of_independent_classes_is_refused():
    """Ten units that are right half the time know nothing, whatever 1 / 10 is."""
    rng = np.random.default_rng(0)
    x, y = rng.uniform(size=(200, 6)).astype("float32"), rng.integers(0, 2, (200, 10))
    model = keras.Sequential([layers.Input((6,)), layers.Dense(10, "sigmoid")])
    robust = compiled(harden(model), loss="binary_crossentropy")
    with pytest.raises(ValueError, match="is no reference"):
        fit(robust, (x, y))


def test_bad_settings():
    for wrong, error, message in (
        ({"max_drop": 2.0}, ValueError, "expected a share"),
        ({"max_drop": None}, TypeError, "`max_drop` is not a number"),
        ({"reference": 87.0}, ValueError, "`reference` is out of range"),
        ({"reference": "m.keras"}, TypeError, "`reference` is not a number"),
    ):
        with pytest.raises(error, match=message):
            AccuracyConstraint(**wrong)


def test_a_model_without_penalties(data):
    none = harden(net(), jacobian_weight=0.0, selective_weight=0.0)
    for model in (none, net()):
        with pytest.raises(ValueError, match="which has none"):
            fit(compiled(model), data)


# The rule at work


def test_factor_follows_the_rule(data, trained):
    robust = compiled(harden(plain(trained)))
    history = fit(robust, data, AccuracyConstraint(max_drop=0.05), epochs=4)
    slacks = [0.05, *history["accuracy_slack"]]
    factors = [*history["penalty_factor"], float(robust.penalty_factor)]
    assert factors[0] == 1.0
    for before, last, slack, after in zip(factors, slacks, slacks[1:], factors[1:], strict=False):
        error = standard_error(slack + trained[1] - 0.05, N)
        wanted = next_factor(before, slack, last, drop=0.05, error=error)
        assert after == pytest.approx(wanted, rel=1e-5)
    assert factors[-1] != 1.0


def test_factor_falls_or_rises(data, trained, capsys):
    """A bound out of reach, and one that is far away."""
    for bound, least, most in ((1.0, 0, 0.2), (0.3, 7, 9)):
        robust = compiled(harden(plain(trained)), rate=1e-5)
        constraint = AccuracyConstraint(max_drop=0, reference=bound)
        fit(robust, data, constraint, epochs=3, verbose=2)
        assert least <= float(robust.penalty_factor) <= most
        missed = "points below its bound, with a penalty factor"
        assert (missed in capsys.readouterr().out) == (bound == 1.0)


def test_factor_rests_while_the_penalties_grow_in(data, trained):
    robust = compiled(harden(plain(trained), warmup=0.5), rate=1e-5)
    factors = fit(robust, data, epochs=4)["penalty_factor"]
    assert factors[:2] == [1.0, 1.0]
    assert factors[2] != 1.0


def test_epochs_without_validation(data, trained):
    robust = compiled(harden(plain(trained)))
    history = fit(robust, data, epochs=4, validation_freq=2)
    assert len(history["penalty_factor"]) == 4
    assert len(history["accuracy_slack"]) == 2
    assert history["penalty_factor"][2] == history["penalty_factor"][3]


def test_factor_is_one_of_all_weights(data, trained):
    """Weights times two are a factor of two."""
    for settings in ({}, {"estimator": "jvp", "norm": "squared"}):
        weights = {"jacobian_weight": 0.02, "selective_weight": 0.05}
        doubled = {name: 2 * value for name, value in weights.items()}
        reported = []
        for given, factor in ((weights, 2.0), (doubled, 1.0)):
            robust = compiled(harden(plain(trained), **given, **settings))
            robust.penalty_factor.assign(factor)
            logs = robust.train_on_batch(*data, return_dict=True)
            reported.append([logs["loss"], logs["task_loss"]])
        np.testing.assert_allclose(*reported, rtol=1e-5)
        assert reported[0][0] > reported[0][1]


# Ways to run


@pytest.mark.parametrize(
    "mode",
    [
        "several steps",
        "two devices",
        "XLA",
    ],
)
@pytest.mark.slow
def test_modes_agree(data, trained, mode):
    """Without random maps and projections all modes take the steps of eager mode."""
    steps = {"steps_per_execution": 2} if mode == "several steps" else {}
    steps |= {"jit_compile": True} if mode == "XLA" else {}
    two_devices = tf.distribute.MirroredStrategy(
        ["CPU:0", "CPU:1"], cross_device_ops=tf.distribute.ReductionToOneDevice()
    )
    histories, weights = [], []
    for settings in ({}, {"run_eagerly": False, **steps}):
        devices = mode == "two devices" and settings
        with two_devices.scope() if devices else nullcontext():
            robust = compiled(harden(plain(trained), estimator="exact"), **settings)
        histories.append(fit(robust, data))
        weights.append(robust.base.get_weights())
    for name in ("penalty_factor", "accuracy_slack"):
        np.testing.assert_allclose(*(h[name] for h in histories), atol=1e-6)
    for a, b in zip(*weights, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_half_precision(data, trained):
    keras.config.set_dtype_policy("mixed_float16")
    robust = compiled(harden(plain(trained)), run_eagerly=False)
    history = fit(robust, data, AccuracyConstraint(max_drop=0.1, reference=1.0))
    slack = accuracy(robust, *data) - 0.9
    assert history["accuracy_slack"][-1] == pytest.approx(slack, abs=1e-6)
    assert all(factor > 0 for factor in history["penalty_factor"])


class Cut(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 2:
            raise KeyboardInterrupt


@pytest.mark.slow
@pytest.mark.parametrize("way", ["file", "backup"])
def test_resume_goes_on_exactly(data, trained, way, tmp_path):
    unbroken = compiled(harden(plain(trained)))
    wanted = fit(unbroken, data, epochs=4)
    first = compiled(harden(plain(trained)))
    if way == "file":
        fit(first, data, epochs=2)
        first.save(tmp_path / "m.keras")
        resumed = keras.models.load_model(tmp_path / "m.keras")
        history = fit(resumed, data, epochs=4, initial_epoch=2)
    else:
        folder = tmp_path / "backup"
        backup = keras.callbacks.BackupAndRestore(folder)
        with pytest.raises(KeyboardInterrupt):
            fit(first, data, epochs=4, callbacks=[backup, Cut()])
        resumed = compiled(harden(plain(trained)))
        backup = keras.callbacks.BackupAndRestore(folder)
        history = fit(resumed, data, epochs=4, callbacks=[backup])
    for name in ("penalty_factor", "accuracy_slack", "loss"):
        np.testing.assert_allclose(history[name], wanted[name][2:], rtol=1e-6)
    for name in ("penalty_factor", "reference_accuracy", "accuracy_slack"):
        ours, theirs = (float(getattr(m, name)) for m in (resumed, unbroken))
        assert ours == theirs


# The rule


UNITS = {"drop": 0.02, "error": 0.008}


def test_monotone_in_the_slack():
    slacks = np.linspace(-0.2, 0.2, 81)
    factors = [next_factor(0.5, s, s, **UNITS) for s in slacks]
    assert np.all(np.diff(factors) >= 0)
    inside = np.abs(slacks) < 0.028
    assert np.all(np.diff(np.array(factors)[inside]) > 0)
    assert min(factors) == pytest.approx(0.5 / 4)
    assert max(factors) == pytest.approx(0.5 * 2)


def test_no_slack_is_a_fixed_point():
    for factor in (LOWEST, 1.0, HIGHEST):
        for last in (None, -0.05, 0.05):
            found = next_factor(factor, 0.0, last, **UNITS)
            assert found == pytest.approx(factor)


def test_bounded():
    low = high = 1.0
    for _ in range(40):
        low = next_factor(low, -1.0, -1.0, **UNITS)
        high = next_factor(high, 1.0, 1.0, **UNITS)
    assert (low, high) == (LOWEST, HIGHEST)


def test_formula():
    expected = 0.7 * 2.0 ** (-0.014 / 0.028)
    assert next_factor(0.7, -0.014, -0.014, **UNITS) == pytest.approx(expected)


def test_it_waits_while_the_violation_closes():
    assert next_factor(0.5, -0.05, -0.09, **UNITS) == 0.5
    assert next_factor(0.5, -0.05, None, **UNITS) == 0.5
    assert next_factor(0.5, -0.05, -0.055, **UNITS) < 0.5  # within the noise
    assert next_factor(0.5, 0.01, None, **UNITS) > 0.5


def test_no_drop_and_perfect_accuracy_are_defined():
    error = standard_error(1.0, 50)
    assert 0 < error < 0.05
    assert math.isfinite(next_factor(1.0, 0.0, None, drop=0.0, error=error))


def simulated(drop, power, start, *, lag, noise, decay, examples=2000, epochs=60):
    """Run the rule on `accuracy = 0.87 - 0.05 f^power`, >= 0.1, reached with a lag.

    The learning rate costs `decay` at first and nothing at the end.
    """
    rng = np.random.default_rng(0)
    factor, last, lost = start, None, 0.0
    slacks, factors = [], []
    for epoch in range(epochs):
        lost += (1.0 - lag) * (0.05 * factor**power - lost)
        rate = 0.5 + 0.5 * math.cos(math.pi * epoch / epochs)
        accuracy = max(0.87 - lost - decay * rate, 0.1)
        seen = accuracy + noise * rng.standard_normal()
        slack = seen - (0.87 - drop)
        error = standard_error(seen, examples)
        factor = next_factor(factor, slack, last, drop=drop, error=error)
        last = slack
        slacks.append(accuracy - (0.87 - drop))
        factors.append(factor)
    return np.array(slacks), np.array(factors)


def test_converges_on_a_plant():
    for drop, power, start in ((0.01, 0.4, 0.02), (0.02, 0.7, 1.0), (0.05, 1.0, 50.0)):
        slacks, factors = simulated(drop, power, start, lag=0.3, noise=0.0, decay=0.0)
        assert np.abs(slacks[-10:]).max() < 0.1 * drop
        assert factors[-1] == pytest.approx((drop / 0.05) ** (1 / power), rel=0.25)


def test_noise_is_averaged():
    """The accuracy itself strays less than its measurement."""
    for drop in (0.01, 0.05):
        slacks, _ = simulated(drop, 0.7, 1.0, lag=0.3, noise=0.006, decay=0.0, epochs=400)
        assert abs(slacks[40:].mean()) < 0.1 * drop
        assert slacks[40:].std() < 0.006


def test_ends_feasible_after_a_learning_rate_decay():
    slacks, _ = simulated(0.02, 0.7, 1.0, lag=0.3, noise=0.0, decay=0.02, epochs=15)
    assert 0.0 <= slacks[-1] < 0.01


def test_standard_error():
    rng = np.random.default_rng(0)
    accuracies = rng.binomial(2000, 0.85, 4000) / 2000
    assert standard_error(0.85, 2000) == pytest.approx(accuracies.std(), rel=0.05)
    assert standard_error(0.0, 0) > 0


def test_clearly_trained():
    for accuracy, examples, classes, expected in (
        (0.15, 2000, 10, False),
        (0.87, 2000, 10, True),
        (0.65, 20, 2, False),  # 13 of 20 heads
        (0.80, 500, 2, True),
        (0.30, 5000, 1000, True),
        (0.001, 5000, 1000, False),
    ):
        assert clearly_trained(accuracy, examples, classes) is expected
