"""Refreshed maps follow the model, without a retrace."""

from itertools import pairwise

import keras
import numpy as np
import pytest
from keras import layers

import keras_jsigr as kj
from keras_jsigr.attacks import PGD
from keras_jsigr.callbacks import RefreshMaps, RobustAccuracy
from keras_jsigr.saliency import cache as refreshed_codes

N = 12


@pytest.fixture
def data_refresh_maps():
    rng = np.random.default_rng(0)
    return rng.uniform(0, 1, (N, 6, 6, 1)).astype("float32"), np.arange(N) % 3


def net():
    return keras.Sequential(
        [layers.Input((6, 6, 1)), layers.Flatten(), layers.Dense(3)]
    )


def compiled(robust):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    robust.compile(keras.optimizers.SGD(0.5), loss)
    return robust


@pytest.fixture
def cached(data_refresh_maps):
    model = net()
    cache = kj.PerturbationCache.build(model, *data_refresh_maps, grid=2, verbose=0)
    return compiled(kj.harden(model, maps=cache, verbose=0))


class Watch(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.codes = []

    def on_epoch_end(self, epoch, logs=None):
        self.codes.append(np.array(self.model.map_table.codes))


def test_table_changes_in_its_epochs_only(data_refresh_maps, cached, monkeypatch):
    traces = []
    original = kj.JSIGRModel.train_step

    def counted(self, batch):
        traces.append(1)
        return original(self, batch)

    monkeypatch.setattr(kj.JSIGRModel, "train_step", counted)
    first = np.array(cached.map_table.codes)
    watch = Watch()
    history = cached.fit(
        *data_refresh_maps,
        batch_size=6,
        epochs=6,
        verbose=0,
        callbacks=[RefreshMaps(*data_refresh_maps, every=2, start=1), watch],
    ).history
    same = [
        np.array_equal(a, b)
        for a, b in zip([first, *watch.codes], watch.codes, strict=False)
    ]
    assert same == [True, False, True, False, True, False]
    assert history["map_hits"] == [1.0] * 6
    assert len(traces) == 1


def test_refreshed_maps_are_those_of_the_model(data_refresh_maps, cached):
    cached.fit(*data_refresh_maps, epochs=1, verbose=0)
    callback = RefreshMaps(*data_refresh_maps, every=1, start=0)
    callback.set_model(cached)
    callback.on_train_begin()
    callback.on_epoch_begin(0)
    fresh = kj.PerturbationCache.build(cached, *data_refresh_maps, grid=2, verbose=0)
    np.testing.assert_array_equal(cached.map_table.codes, fresh.codes)
    np.testing.assert_array_equal(cached.map_table.keys, fresh.keys)


def test_one_program_serves_all_refreshes(data_refresh_maps, monkeypatch):
    """It reads the present weights, folded batch normalization included."""
    inputs = layers.Input((6, 6, 1))
    hidden = layers.BatchNormalization()(layers.Conv2D(4, 3, use_bias=False)(inputs))
    outputs = layers.Dense(3)(layers.Flatten()(layers.Activation("silu")(hidden)))
    model = keras.Model(inputs, outputs)
    cache = kj.PerturbationCache.build(model, *data_refresh_maps, grid=2, verbose=0)
    robust = compiled(kj.harden(model, maps=cache, verbose=0))
    made = []
    original = refreshed_codes.perturbation_explainer

    def counted(*args, **kwargs):
        made.append(original(*args, **kwargs))
        return made[-1]

    monkeypatch.setattr(refreshed_codes, "perturbation_explainer", counted)
    seen = []

    def compare(epoch, logs=None):
        seen.append(np.array(robust.map_table.codes))
        fresh = kj.PerturbationCache.build(
            robust, *data_refresh_maps, grid=2, verbose=0
        )
        np.testing.assert_array_equal(seen[-1], fresh.codes)

    check = keras.callbacks.LambdaCallback(on_epoch_begin=compare)
    refresh = RefreshMaps(*data_refresh_maps, every=1, start=0)
    robust.fit(
        *data_refresh_maps,
        batch_size=6,
        epochs=3,
        verbose=0,
        callbacks=[refresh, check],
    )
    assert len(made) == 1
    assert len(made[0]._compiled) == 1
    assert not np.array_equal(seen[0], seen[2])


def test_without_cached_maps(data_refresh_maps):
    robust = compiled(kj.harden(net(), verbose=0))
    with pytest.raises(ValueError, match="needs cached maps"):
        robust.fit(
            *data_refresh_maps, verbose=0, callbacks=[RefreshMaps(*data_refresh_maps)]
        )


@pytest.mark.parametrize("wrong", [{"every": 0}, {"start": -1}])
def test_bad_settings(data_refresh_maps, wrong):
    with pytest.raises(ValueError, match="expected every >= 1 and start >= 0"):
        RefreshMaps(*data_refresh_maps, **wrong)


def test_examples_that_training_would_not_find(data_refresh_maps, cached):
    """A last bit of difference: the maps of the cache would be lost."""
    x, y = data_refresh_maps
    other = np.nextafter(x, np.float32(2.0))
    with pytest.raises(ValueError, match="other examples than the maps are of"):
        cached.fit(x, y, epochs=2, callbacks=[RefreshMaps(other, y)], verbose=0)
    assert int(cached.steps_taken.value) == 0  # told before anything was trained


def linear(weights):
    """Two classes, logits `(0, w x + b)`, never trained: the optimum is known."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(2)])
    model.set_weights([np.array([[0.0, weights]]), np.array([0.0, -weights / 2])])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.0), loss)
    return model


X = np.array([[0.0], [0.3], [0.45], [0.55], [0.7], [1.0]], "float32")


Y = np.array([0, 0, 0, 1, 0, 1])


def test_closed_form():
    # The boundary is at 0.5: 0.45 and 0.55 fall under 0.1, 0.7 was wrong before.
    model = linear(4.0)
    watch = RobustAccuracy(X, Y, epsilon=0.1)
    history = model.fit(X, Y, epochs=2, verbose=0, callbacks=[watch]).history
    assert history["val_robust_accuracy"] == [0.5, 0.5]


def test_equals_attack_and_evaluate(data, plain, fit):
    x, y = data
    model = plain()
    history = fit(model, RobustAccuracy(x, y, epsilon=0.05, steps=3), epochs=1).history
    model.compile(loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    x_adv = PGD(epsilon=0.05, steps=3, early_stop=True)(model, x, y)
    said = [model.predict(v, verbose=0).argmax(-1) == y for v in (x, x_adv)]
    assert history["val_robust_accuracy"] == [np.mean(said[0] & said[1])]


class Scripted(RobustAccuracy):
    """Says what a test wants it to say."""

    def __init__(self, values, **kwargs):
        super().__init__(X, Y, epsilon=0.1, **kwargs)
        self.values = iter(values)

    def measure(self, logs):
        return {self.name: next(self.values)}


def test_later_callbacks_see_it(tmp_path):
    path = tmp_path / "best.keras"
    best = keras.callbacks.ModelCheckpoint(
        path, monitor="val_robust_accuracy", mode="max", save_best_only=True
    )
    stop = keras.callbacks.EarlyStopping("val_robust_accuracy", mode="max", patience=2)
    log = keras.callbacks.CSVLogger(tmp_path / "log.csv")
    saved = []
    look = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: saved.append(path.stat().st_mtime_ns)
    )
    model = linear(4.0)
    watch = Scripted([0.1, 0.4, 0.3, 0.2, 0.9])
    callbacks = [watch, best, stop, log, look]
    history = model.fit(X, Y, epochs=5, verbose=0, callbacks=callbacks).history
    assert history["val_robust_accuracy"] == [0.1, 0.4, 0.3, 0.2]
    assert [a == b for a, b in pairwise(saved)] == [0, 1, 1]
    header, *rows = (tmp_path / "log.csv").read_text().splitlines()
    assert header.split(",").index("val_robust_accuracy")
    assert len(rows) == 4


def test_last_figure_is_repeated():
    watch = Scripted([0.1, 0.2, 0.3], every=3)
    history = linear(4.0).fit(X, Y, epochs=6, verbose=0, callbacks=[watch]).history
    assert history["val_robust_accuracy"] == [0.1, 0.1, 0.2, 0.2, 0.2, 0.3]


def test_name_and_second_training():
    watch = Scripted([0.1, 0.2], name="val_pgd", every=9)
    model = linear(4.0)
    for value in (0.1, 0.2):
        history = model.fit(X, Y, verbose=0, callbacks=[watch]).history
        assert history["val_pgd"] == [value]


def test_nothing_is_traced_again(data, plain, fit):
    model, traces = plain(), []
    watch = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: traces.append(model.get_layer("traced").traces)
    )
    fit(model, RobustAccuracy(*data, epsilon=0.1, steps=2), watch, epochs=3)
    assert len(set(traces)) == 1


def test_range_of_the_hardened_model(data, hardened):
    x, y = data
    watch = RobustAccuracy(255.0 * x, y, epsilon=8.0, steps=2)
    robust = hardened(input_range=(0.0, 255.0))
    history = robust.fit(255.0 * x, y, verbose=0, callbacks=[watch]).history
    assert watch.attack.input_range == (0.0, 255.0)
    assert 0.0 <= history["val_robust_accuracy"][0] <= 1.0


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"every": 0}, "`every` is out of range"),
        ({"epsilon": -1.0}, "`epsilon` is out of range"),
        ({"steps": 0}, "`steps` is out of range"),
    ],
)
def test_bad_settings_robust_accuracy(wrong, message):
    with pytest.raises(ValueError, match=message):
        RobustAccuracy(X, Y, **{"epsilon": 0.1, **wrong})


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (X, Y + 1, "`y` is out of range"),
        (X, Y[:2], "one label per example"),
        (X + 1.0, Y, "leaves the input range"),
    ],
)
def test_what_does_not_fit_the_model(x, y, message):
    with pytest.raises(ValueError, match=message):
        linear(4.0).fit(X, Y, verbose=0, callbacks=[RobustAccuracy(x, y, epsilon=0.1)])
