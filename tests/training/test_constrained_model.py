"""`penalty_weights="auto"`: the reference, the data, the state, and what it says."""

import math
from contextlib import nullcontext

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_jsigr as kj
from keras_jsigr.serving.model_card import model_card
from keras_jsigr.training.penalty_rule import next_factor, standard_error

N, BATCH = 64, 16
FIXED = {"selection": "all", "ramp_steps": 0, "verbose": 0, "probe": False}
AUTO = {**FIXED, "penalty_weights": "auto"}


@pytest.fixture(scope="module")
def data():
    """Blobs that a linear model separates well, not wholly."""
    rng = np.random.default_rng(0)
    y = np.arange(N) % 3
    centres = np.eye(3)[y][:, [0, 1, 2, 0, 1, 2]]
    x = 0.3 + 0.25 * centres + 0.2 * rng.standard_normal((N, 6))
    return np.clip(x, 0, 1).astype("float32"), y


def net():
    keras.utils.set_random_seed(3)
    return keras.Sequential(
        [layers.Input((6,)), layers.Dense(8, activation="silu"), layers.Dense(3)]
    )


def compiled(model, rate=0.01, **kwargs):
    """Eager where nothing else is asked for: tracing costs more than these steps."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    kwargs = {"run_eagerly": True, **kwargs}
    model.compile(keras.optimizers.Adam(rate), loss, **kwargs)
    return model


@pytest.fixture(scope="module")
def trained(data):
    """The weights of a plain network that learned its task, and its accuracy."""
    model = compiled(net(), 0.05)
    model.fit(*data, epochs=15, batch_size=BATCH, verbose=0)
    share = accuracy(model, *data)
    assert 0.75 < share < 1.0
    return model.get_weights(), share


def plain(trained):
    model = net()
    model.set_weights(trained[0])
    return model


def accuracy(model, x, y):
    return float(np.mean(model.predict(x, verbose=0).argmax(-1) == y))


def fit(robust, data, **kwargs):
    kwargs = {"epochs": 2, "shuffle": False, "verbose": 0, **kwargs}
    if "validation_split" not in kwargs:
        kwargs.setdefault("validation_data", data)
    return robust.fit(*data, batch_size=BATCH, **kwargs).history


# The reference


@pytest.mark.slow
def test_reference_is_the_base_when_fit_starts(data, trained):
    robust = compiled(kj.harden(plain(trained), **AUTO))
    assert math.isnan(float(robust.reference_accuracy.value))
    history = fit(robust, data, epochs=3)
    assert float(robust.reference_accuracy.value) == pytest.approx(trained[1])
    bound = trained[1] - 0.02
    slack = accuracy(robust, *data) - bound
    assert history["accuracy_slack"][-1] == pytest.approx(slack, abs=1e-6)
    fit(robust, data)  # measured once: the base has moved since
    assert float(robust.reference_accuracy.value) == pytest.approx(trained[1])


def test_reference_is_a_number(data):
    robust = compiled(kj.harden(net(), reference_accuracy=0.8, **AUTO))
    history = fit(robust, data)
    slack = accuracy(robust, *data) - 0.78
    assert history["accuracy_slack"][-1] == pytest.approx(slack, abs=1e-6)


@pytest.mark.parametrize("softmax", [False, True])
def test_reference_is_a_plain_twin(data, trained, softmax, tmp_path):
    twin = plain(trained)
    if softmax:
        twin = keras.Sequential([twin, layers.Softmax()])
    robust = compiled(kj.harden(net(), reference_accuracy=twin, **AUTO))
    with pytest.raises(ValueError, match="Call `fit` first"):
        robust.save(tmp_path / "early.keras")
    fit(robust, data)
    assert float(robust.reference_accuracy.value) == pytest.approx(trained[1])
    shared = {id(v) for v in twin.variables}
    assert not shared & {id(v) for v in robust.variables}
    robust.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    assert float(loaded.reference_accuracy.value) == pytest.approx(trained[1])


def test_untrained_base_is_no_reference(data):
    model = net()
    model.layers[-1].set_weights([np.zeros((8, 3)), np.array([2.0, 0.0, 0.0])])
    robust = compiled(kj.harden(model, **AUTO))
    before = robust.base.get_weights()
    with pytest.raises(ValueError, match="Train the plain model first") as error:
        fit(robust, data)
    assert "reference_accuracy=" in str(error.value)
    for a, b in zip(before, robust.base.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("ignored", [-1, 0])
def test_examples_that_the_loss_ignores_do_not_count(data, trained, ignored):
    x, y = data
    some = np.where(np.arange(N) % 4 == 0, ignored, y)
    loss = keras.losses.SparseCategoricalCrossentropy(
        from_logits=True, ignore_class=ignored
    )
    robust = kj.harden(plain(trained), **AUTO)
    robust.compile(keras.optimizers.Adam(0.01), loss, run_eagerly=True)
    history = fit(robust, (x, some))
    seen = some != ignored
    reference = accuracy(plain(trained), x[seen], y[seen])
    assert float(robust.reference_accuracy.value) == pytest.approx(reference)
    slack = accuracy(robust, x[seen], y[seen]) - reference + 0.02
    assert history["accuracy_slack"][-1] == pytest.approx(slack, abs=1e-6)


def test_model_card_tells_what_the_constraint_chose(data, trained):
    robust = compiled(kj.harden(plain(trained), **AUTO))
    assert model_card(robust, [], {})["settings"]["reference_accuracy"] is None
    factor = fit(robust, data, epochs=3)["penalty_factor"][-1]
    settings = model_card(robust, [], {})["settings"]
    assert settings["penalty_factor"] == float(robust.penalty_factor.value) != factor
    assert settings["reference_accuracy"] == pytest.approx(trained[1])
    fixed = model_card(compiled(kj.harden(net(), **FIXED)), [], {})
    assert "penalty_factor" not in fixed["settings"]


# The rule at work


def test_factor_follows_the_rule(data, trained):
    robust = compiled(kj.harden(plain(trained), accuracy_drop=0.05, **AUTO))
    history = fit(robust, data, epochs=4)
    slacks = [0.05, *history["accuracy_slack"]]
    factors = [*history["penalty_factor"], float(robust.penalty_factor.value)]
    assert factors[0] == 1.0
    for before, last, slack, after in zip(
        factors, slacks, slacks[1:], factors[1:], strict=False
    ):
        error = standard_error(slack + trained[1] - 0.05, N)
        wanted = next_factor(before, slack, last, drop=0.05, error=error)
        assert after == pytest.approx(wanted, rel=1e-5)
    assert factors[-1] != 1.0


@pytest.mark.parametrize(("bound", "least", "most"), [(1.0, 0, 0.2), (0.3, 7, 9)])
def test_factor_falls_or_rises(data, trained, bound, least, most):
    """A bound out of reach, and one that is far away."""
    robust = compiled(
        kj.harden(plain(trained), reference_accuracy=bound, accuracy_drop=0, **AUTO),
        rate=1e-5,
    )
    slack = trained[1] - bound
    assert slack != 0
    fit(robust, data, epochs=3)
    assert least <= float(robust.penalty_factor.value) <= most


def test_factor_rests_while_the_penalties_ramp(data, trained):
    settings = {**AUTO, "delay_steps": 2, "ramp_steps": 4}
    robust = compiled(kj.harden(plain(trained), **settings), rate=1e-5)
    factors = fit(robust, data, epochs=4)["penalty_factor"]  # four steps each
    assert factors[:2] == [1.0, 1.0]
    assert factors[2] != 1.0


@pytest.mark.parametrize("settings", [{}, {"estimator": "jvp", "norm": "squared"}])
def test_factor_is_one_of_all_weights(data, trained, settings):
    """Weights times two are a factor of two."""
    weights = {"jacobian_weight": 0.02, "selective_weight": 0.05}
    doubled = {name: 2 * value for name, value in weights.items()}
    reported = []
    for given, factor in ((weights, 2.0), (doubled, 1.0)):
        robust = compiled(kj.harden(plain(trained), **given, **settings, **AUTO))
        robust.penalty_factor.assign(factor)
        logs = robust.train_on_batch(*data, return_dict=True)
        reported.append([logs["loss"], logs["task_loss"]])
    np.testing.assert_allclose(*reported, rtol=1e-5)
    assert reported[0][0] > reported[0][1]


# The data


def test_no_validation_data(data, trained):
    robust = compiled(kj.harden(plain(trained), **AUTO))
    with pytest.raises(ValueError, match="got no validation data, expected"):
        robust.fit(*data, verbose=0)
    assert int(robust.steps_taken.value) == 0


def test_a_split_of_what_cannot_be_cut(data, trained):
    robust = compiled(kj.harden(plain(trained), **AUTO))
    dataset = tf.data.Dataset.from_tensor_slices(data).batch(BATCH)
    with pytest.raises(ValueError, match="Pass validation_data= instead"):
        robust.fit(dataset, validation_split=0.5, verbose=0)


@pytest.mark.parametrize("kind", ["arrays", "split", "tf.data", "positional"])
def test_validation_of_any_kind(data, trained, kind):
    x, y = data
    robust = compiled(kj.harden(plain(trained), **AUTO))
    common = {"epochs": 1, "shuffle": False, "verbose": 0}
    dataset = tf.data.Dataset.from_tensor_slices((x[48:], y[48:])).batch(5)
    if kind == "arrays":
        robust.fit(
            x[:48], y[:48], BATCH, validation_data=(x[48:], y[48:]), **common
        )  # fmt: skip
    elif kind == "split":
        robust.fit(x, y, BATCH, validation_split=0.25, **common)
    elif kind == "tf.data":
        robust.fit(x[:48], y[:48], BATCH, validation_data=dataset, **common)
    else:
        robust.fit(x[:48], y[:48], BATCH, 1, 0, None, 0.0, (x[48:], y[48:]), False)
    expected = accuracy(plain(trained), x[48:], y[48:])
    assert float(robust.reference_accuracy.value) == pytest.approx(expected)


def test_generators_need_a_number(data, trained):
    def batches():
        while True:
            yield data

    robust = compiled(kj.harden(plain(trained), **AUTO))
    settings = {"validation_steps": 1, "epochs": 1}
    with pytest.raises(ValueError, match="got a generator"):
        fit(robust, data, validation_data=batches(), **settings)
    robust = compiled(kj.harden(plain(trained), reference_accuracy=0.9, **AUTO))
    history = fit(robust, data, validation_data=batches(), **settings)
    slack = accuracy(robust, *data) - 0.88
    assert history["accuracy_slack"] == pytest.approx([slack], abs=1e-6)


def test_epochs_without_validation(data, trained):
    robust = compiled(kj.harden(plain(trained), **AUTO))
    history = fit(robust, data, epochs=4, validation_freq=2)
    assert len(history["penalty_factor"]) == 4
    assert len(history["accuracy_slack"]) == 2
    assert history["penalty_factor"][2] == history["penalty_factor"][3]


def test_weights_of_examples_and_classes(data, trained):
    """The constraint counts every validation example once, whatever it weighs."""
    x, y = data
    robust = compiled(kj.harden(plain(trained), **AUTO), metrics=["accuracy"])
    weights = np.linspace(0.0, 2.0, N).astype("float32")
    history = fit(
        robust,
        data,
        validation_data=(x, y, weights),
        class_weight={0: 1.0, 1: 2.0, 2: 0.5},
    )
    bound = trained[1] - 0.02
    np.testing.assert_allclose(
        history["accuracy_slack"], np.array(history["val_accuracy"]) - bound, atol=1e-6
    )


# Ways to run


@pytest.mark.parametrize(
    "mode",
    [
        "graph",
        "several steps",
        pytest.param("two devices", marks=pytest.mark.slow),
        pytest.param("XLA", marks=pytest.mark.slow),
    ],
)
def test_modes_agree(data, trained, mode, two_devices):
    """Without random maps and projections all modes take the steps of eager mode."""
    exact = {**AUTO, "estimator": "exact"}
    steps = {"steps_per_execution": 2} if mode == "several steps" else {}
    steps |= {"jit_compile": True} if mode == "XLA" else {}
    histories, weights = [], []
    for settings in ({}, {"run_eagerly": False, **steps}):
        devices = mode == "two devices" and settings
        with two_devices.scope() if devices else nullcontext():
            robust = compiled(kj.harden(plain(trained), **exact), **settings)
        histories.append(fit(robust, data))
        weights.append(robust.base.get_weights())
    for name in ("penalty_factor", "accuracy_slack"):
        np.testing.assert_allclose(*(h[name] for h in histories), atol=1e-6)
    for a, b in zip(*weights, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_half_precision(data, trained, policy):
    keras.config.set_dtype_policy(policy)
    settings = {**AUTO, "reference_accuracy": 1.0, "accuracy_drop": 0.1}
    robust = compiled(kj.harden(plain(trained), **settings), run_eagerly=False)
    history = fit(robust, data)
    slack = accuracy(robust, *data) - 0.9
    assert history["accuracy_slack"][-1] == pytest.approx(slack, abs=1e-6)
    assert all(factor > 0 for factor in history["penalty_factor"])
    assert {v.dtype for v in robust.base.trainable_variables} == {"float32"}


@pytest.fixture
def two_devices():
    return tf.distribute.MirroredStrategy(
        ["CPU:0", "CPU:1"], cross_device_ops=tf.distribute.ReductionToOneDevice()
    )


def test_metrics_are_those_of_the_user(data, trained):
    fixed = compiled(kj.harden(plain(trained), **FIXED), metrics=["accuracy"])
    auto = compiled(kj.harden(plain(trained), **AUTO), metrics=["accuracy"])
    assert fixed.penalty_factor is None
    names = set(fit(auto, data)) - set(fit(fixed, data))
    assert names == {"penalty_factor", "accuracy_slack"}
    assert set(auto.evaluate(*data, verbose=0, return_dict=True)) == {
        "loss",
        "accuracy",
    }


class Cut(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 2:
            raise KeyboardInterrupt


@pytest.mark.slow
@pytest.mark.parametrize("way", ["file", "backup"])
def test_resume_goes_on_exactly(data, trained, way, tmp_path):
    unbroken = compiled(kj.harden(plain(trained), **AUTO))
    wanted = fit(unbroken, data, epochs=4)
    first = compiled(kj.harden(plain(trained), **AUTO))
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
        resumed = compiled(kj.harden(plain(trained), **AUTO))
        backup = keras.callbacks.BackupAndRestore(folder)
        history = fit(resumed, data, epochs=4, callbacks=backup)
    for name in ("penalty_factor", "accuracy_slack", "loss"):
        np.testing.assert_allclose(history[name], wanted[name][2:], rtol=1e-6)
    for name in ("penalty_factor", "reference_accuracy", "accuracy_slack"):
        ours, theirs = (float(getattr(m, name).value) for m in (resumed, unbroken))
        assert ours == theirs


def test_callbacks_see_the_factor(data, trained, tmp_path):
    robust = compiled(kj.harden(plain(trained), **AUTO))
    log = keras.callbacks.CSVLogger(tmp_path / "log.csv")
    fit(robust, data, callbacks=[log])
    assert "penalty_factor" in (tmp_path / "log.csv").read_text()
    with pytest.raises(TypeError, match="expected a list of callbacks"):
        fit(robust, data, callbacks=keras.callbacks.CallbackList([log]))


def test_it_says_when_the_bound_is_missed(data, trained, capsys):
    settings = {**AUTO, "reference_accuracy": 1.0, "accuracy_drop": 0.0}
    model = plain(trained)
    model.set_weights([np.zeros_like(w) for w in model.get_weights()])
    robust = compiled(kj.harden(model, **settings), rate=1e-6)
    fit(robust, data, verbose=2)
    assert "points below its bound, with a penalty factor" in capsys.readouterr().out


def test_an_untrained_reference_of_independent_classes_is_refused():
    """Ten units that are right half the time know nothing, whatever 1 / 10 is."""
    rng = np.random.default_rng(0)
    x, y = rng.uniform(size=(200, 6)).astype("float32"), rng.integers(0, 2, (200, 10))
    keras.utils.set_random_seed(0)
    model = keras.Sequential([layers.Input((6,)), layers.Dense(10, "sigmoid")])
    robust = kj.harden(model, **AUTO)
    robust.compile("sgd", "binary_crossentropy", run_eagerly=True)
    with pytest.raises(ValueError, match="is no reference"):
        robust.fit(x, y, validation_data=(x, y), verbose=0)


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ({"penalty_weights": "search"}, ValueError, "Unknown `penalty_weights`"),
        ({"accuracy_drop": 2.0}, ValueError, "expected a share"),
        ({"accuracy_drop": None}, TypeError, "`accuracy_drop` is not a number"),
        ({"reference_accuracy": 87.0}, ValueError, "`reference_accuracy` is out of"),
        ({"reference_accuracy": "m.keras"}, TypeError, "is not a number"),
        ({"jacobian_weight": 0, "selective_weight": 0}, ValueError, "weights of 0"),
        (
            {"penalty_weights": "fixed", "reference_accuracy": 0.9},
            ValueError,
            "Pass both, or neither",
        ),
    ],
)
def test_bad_settings(wrong, error, message):
    with pytest.raises(error, match=message):
        kj.harden(net(), **{**AUTO, **wrong})
