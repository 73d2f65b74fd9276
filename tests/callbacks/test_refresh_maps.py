"""Refreshed maps follow the model, without a retrace."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_jsigr as kj
from keras_jsigr.callbacks import RefreshMaps
from keras_jsigr.saliency import refreshed_codes

N = 12


@pytest.fixture
def data():
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
def cached(data):
    model = net()
    cache = kj.PerturbationCache.build(model, *data, grid=2, verbose=0)
    return compiled(kj.harden(model, maps=cache, verbose=0))


class Watch(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.codes = []

    def on_epoch_end(self, epoch, logs=None):
        self.codes.append(np.array(self.model.map_table.codes))


def test_table_changes_in_its_epochs_only(data, cached, monkeypatch):
    traces = []
    original = kj.JSIGRModel.train_step

    def counted(self, batch):
        traces.append(1)
        return original(self, batch)

    monkeypatch.setattr(kj.JSIGRModel, "train_step", counted)
    first = np.array(cached.map_table.codes)
    watch = Watch()
    history = cached.fit(
        *data,
        batch_size=6,
        epochs=6,
        verbose=0,
        callbacks=[RefreshMaps(*data, every=2, start=1), watch],
    ).history
    same = [
        np.array_equal(a, b)
        for a, b in zip([first, *watch.codes], watch.codes, strict=False)
    ]
    assert same == [True, False, True, False, True, False]
    assert history["map_hits"] == [1.0] * 6
    assert len(traces) == 1


def test_refreshed_maps_are_those_of_the_model(data, cached):
    cached.fit(*data, epochs=1, verbose=0)
    callback = RefreshMaps(*data, every=1, start=0)
    callback.set_model(cached)
    callback.on_train_begin()
    callback.on_epoch_begin(0)
    fresh = kj.PerturbationCache.build(cached, *data, grid=2, verbose=0)
    np.testing.assert_array_equal(cached.map_table.codes, fresh.codes)
    np.testing.assert_array_equal(cached.map_table.keys, fresh.keys)


def test_one_program_serves_all_refreshes(data, monkeypatch):
    """It reads the present weights, folded batch normalization included."""
    inputs = layers.Input((6, 6, 1))
    hidden = layers.BatchNormalization()(layers.Conv2D(4, 3, use_bias=False)(inputs))
    outputs = layers.Dense(3)(layers.Flatten()(layers.Activation("silu")(hidden)))
    model = keras.Model(inputs, outputs)
    cache = kj.PerturbationCache.build(model, *data, grid=2, verbose=0)
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
        fresh = kj.PerturbationCache.build(robust, *data, grid=2, verbose=0)
        np.testing.assert_array_equal(seen[-1], fresh.codes)

    check = keras.callbacks.LambdaCallback(on_epoch_begin=compare)
    refresh = RefreshMaps(*data, every=1, start=0)
    robust.fit(*data, batch_size=6, epochs=3, verbose=0, callbacks=[refresh, check])
    assert len(made) == 1
    assert len(made[0]._compiled) == 1
    assert not np.array_equal(seen[0], seen[2])


def test_without_cached_maps(data):
    robust = compiled(kj.harden(net(), verbose=0))
    with pytest.raises(ValueError, match="needs cached maps"):
        robust.fit(*data, verbose=0, callbacks=[RefreshMaps(*data)])


@pytest.mark.parametrize("wrong", [{"every": 0}, {"start": -1}])
def test_bad_settings(data, wrong):
    with pytest.raises(ValueError, match="expected every >= 1 and start >= 0"):
        RefreshMaps(*data, **wrong)


def test_examples_that_training_would_not_find(data, cached):
    """A last bit of difference: the maps of the cache would be lost."""
    x, y = data
    other = np.nextafter(x, np.float32(2.0))
    with pytest.raises(ValueError, match="other examples than the maps are of"):
        cached.fit(x, y, epochs=2, callbacks=[RefreshMaps(other, y)], verbose=0)
    assert int(cached.steps_taken.value) == 0  # told before anything was trained
