"""Refreshed maps follow the model, without a retrace."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_jsigr as kj
from keras_jsigr.callbacks import RefreshMaps
from keras_jsigr.saliency import cache as saliency_cache

N = 12


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    return rng.uniform(0, 1, (N, 6, 6, 1)).astype("float32"), np.arange(N) % 3


def net():
    return keras.Sequential(
        [layers.Input((6, 6, 1)), layers.Flatten(), layers.Dense(3)]
    )


def hardened(model, maps=None):
    robust = kj.harden(
        model, recipe=kj.JSIGRConfig(epsilon=0.1), saliency_maps=maps, verbose=0
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    robust.compile(keras.optimizers.SGD(0.5), loss)
    return robust


def maps_of(model, data):
    return kj.PerturbationCache.build(model, *data, grid=2, verbose=0)


@pytest.fixture
def cached(data):
    model = net()
    return hardened(model, maps_of(model, data))


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
    refresh = RefreshMaps(*data, every=2, start=1)
    history = cached.fit(
        *data, batch_size=6, epochs=6, verbose=0, callbacks=[refresh, watch]
    ).history
    same = [
        np.array_equal(a, b)
        for a, b in zip([first, *watch.codes], watch.codes, strict=False)
    ]
    assert same == [True, False, True, False, True, False]
    assert history["map_hits"] == [1.0] * 6
    assert len(traces) == 1


def test_one_program_makes_the_maps_of_the_present_weights(data, monkeypatch):
    """Batch normalization, which may be folded into weights, included."""
    inputs = layers.Input((6, 6, 1))
    hidden = layers.BatchNormalization()(layers.Conv2D(4, 3, use_bias=False)(inputs))
    outputs = layers.Dense(3)(layers.Flatten()(layers.Activation("silu")(hidden)))
    model = keras.Model(inputs, outputs)
    robust = hardened(model, maps_of(model, data))
    made = []
    original = saliency_cache.perturbation_explainer

    def counted(*args, **kwargs):
        made.append(original(*args, **kwargs))
        return made[-1]

    monkeypatch.setattr(saliency_cache, "perturbation_explainer", counted)
    seen = []

    def compare(epoch, logs=None):
        seen.append(np.array(robust.map_table.codes))
        fresh = maps_of(robust, data)
        np.testing.assert_array_equal(seen[-1], fresh.codes)
        np.testing.assert_array_equal(robust.map_table.keys, fresh.keys)
        made.pop()  # the one of this comparison

    check = keras.callbacks.LambdaCallback(on_epoch_begin=compare)
    refresh = RefreshMaps(*data, every=1, start=0)
    robust.fit(*data, batch_size=6, epochs=3, verbose=0, callbacks=[refresh, check])
    assert len(made) == 1
    assert not np.array_equal(seen[0], seen[2])


def test_a_progress_bar_by_keras_rule(data, cached, capsys):
    refresh = RefreshMaps(*data, every=1, start=0, verbose=1)
    cached.fit(*data, verbose=0, callbacks=[refresh])
    assert capsys.readouterr().out
    keras.config.disable_interactive_logging()
    try:
        cached.fit(*data, verbose=0, callbacks=[refresh])
    finally:
        keras.config.enable_interactive_logging()
    assert not capsys.readouterr().out


def test_what_is_refused(data, cached):
    with pytest.raises(ValueError, match="needs cached maps"):
        hardened(net()).fit(*data, verbose=0, callbacks=[RefreshMaps(*data)])
    for wrong in ({"every": 0}, {"start": -1}):
        with pytest.raises(ValueError, match="is out of range"):
            RefreshMaps(*data, **wrong)
    # A last bit of difference: the maps of the cache would be lost.
    other = RefreshMaps(np.nextafter(data[0], np.float32(2.0)), data[1])
    with pytest.raises(ValueError, match="other examples than the cache holds"):
        cached.fit(*data, epochs=2, callbacks=[other], verbose=0)
    assert int(cached.steps_taken.value) == 0  # told before anything was trained
