"""What every callback promises: it works in `fit` and leaves the training alone."""

import threading
from itertools import pairwise

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_jsigr as kj
from keras_jsigr import callbacks
from keras_jsigr.attacks import PGD
from keras_jsigr.callbacks import RefreshMaps, RobustAccuracy
from keras_jsigr.saliency import cache as saliency_cache

# The callback, and whether it is meant to change the training.
CALLBACKS = {
    "AccuracyConstraint": (
        lambda x, y, folder: callbacks.AccuracyConstraint(reference=0.9),
        True,
    ),
    "DistributedBackup": (
        lambda x, y, folder: callbacks.DistributedBackup(folder / "backup"),
        False,
    ),
    "PenaltyMonitor": (lambda x, y, folder: callbacks.PenaltyMonitor(x, y), False),
    "RefreshMaps": (
        lambda x, y, folder: callbacks.RefreshMaps(x, y, every=1, start=1),
        True,
    ),
    "RobustAccuracy": (
        lambda x, y, folder: callbacks.RobustAccuracy(x, y, steps=2),
        False,
    ),
    "SaliencyGrid": (
        lambda x, y, folder: callbacks.SaliencyGrid(
            x[:2], y[:2], log_dir=folder, attack_steps=2, freq="batch", every=3
        ),
        False,
    ),
}


def test_all_callbacks_are_listed():
    assert set(CALLBACKS) == set(callbacks.__all__)


@pytest.fixture(scope="module")
def cache(module_data):
    return kj.PerturbationCache.build(net(), *module_data, grid=2, verbose=0)


@pytest.fixture(scope="module")
def module_data():
    rng = np.random.default_rng(0)
    return rng.uniform(0.0, 1.0, (16, 8, 8, 1)).astype("float32"), np.arange(16) % 3


def net():
    keras.utils.set_random_seed(1)
    hidden = [layers.Dense(6, activation="silu"), layers.BatchNormalization()]
    head = [layers.Dropout(0.3), layers.Dense(3, activation="softmax")]
    return keras.Sequential([layers.Input((8, 8, 1)), layers.Flatten(), *hidden, *head])


def hardened(cache, **settings):
    config = kj.JSIGRConfig(
        epsilon=0.1, jacobian_weight=0.01, selective_weight=0.01, check_gradients=False
    )
    robust = kj.harden(net(), recipe=config, saliency_maps=cache, warmup=0, verbose=0)
    robust.compile(keras.optimizers.SGD(0.05), "sparse_categorical_crossentropy", **settings)
    return robust


def train(model, data, *callbacks):
    settings = {"epochs": 2, "batch_size": 8, "shuffle": False, "verbose": 0}
    return model.fit(*data, validation_data=data, callbacks=list(callbacks), **settings).history


@pytest.fixture(scope="module")
def alone(module_data, cache):
    """The variables after a training without callbacks, eager: tracing takes longer."""
    model = hardened(cache, run_eagerly=True)
    train(model, module_data)
    return [np.array(variable) for variable in model.variables]


@pytest.mark.parametrize("name", CALLBACKS)
def test_training_with_it(name, module_data, cache, alone, tmp_path, capsys):
    make, adapts = CALLBACKS[name]
    watched = hardened(cache, run_eagerly=True)
    callback = make(*module_data, tmp_path)
    capsys.readouterr()
    log = train(watched, module_data, callback)
    assert capsys.readouterr() == ("", "")
    assert all(np.isfinite(values).all() for values in log.values())
    assert all(len(values) == 2 for values in log.values())
    if not adapts:
        for left, right in zip(alone, watched.variables, strict=True):
            np.testing.assert_array_equal(left, right)


@pytest.mark.slow
@pytest.mark.parametrize("name", CALLBACKS)
def test_it_goes_on_after_a_reload(name, module_data, cache, tmp_path):
    """With other data pipelines, and Keras' progress bar."""
    (x, y), watched = module_data, hardened(cache)
    callback = CALLBACKS[name][0](x, y, tmp_path)
    log = train(watched, module_data, callback)
    watched.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    batches = tf.data.Dataset.from_tensor_slices((x, y)).batch(8)
    again = loaded.fit(
        batches,
        epochs=3,
        initial_epoch=2,
        validation_data=batches,
        shuffle=False,
        verbose=1,
        callbacks=[callback],
    ).history
    assert set(again) == set(log)
    assert int(loaded.steps_taken.value) == 6


def test_streams_and_several_inputs_are_refused_in_words(module_data):
    """Datasets gave "float() argument" and "dtype object"; lists were stacked."""
    x, y = module_data
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(8)
    for stream in (data, iter(data), (pair for pair in [(x, y)])):
        for make in (
            callbacks.PenaltyMonitor,
            callbacks.RefreshMaps,
            callbacks.SaliencyGrid,
            *([] if stream is data else [lambda x: callbacks.RobustAccuracy(x, epsilon=0.1)]),
        ):
            with pytest.raises(TypeError, match=r"next\(iter\(data\)\)"):
                make(stream)
    for several in ([x, x[:, :4]], (x, x), {"a": x, "b": x}):
        for make in (callbacks.SaliencyGrid, callbacks.RobustAccuracy):
            with pytest.raises(ValueError, match="models of one input"):
                make(several, y)
    assert callbacks.RobustAccuracy(list(x), y).x.shape == x.shape


def test_a_log_folder_in_a_store_is_refused(module_data):
    with pytest.raises(ValueError, match="URL of a store"):
        callbacks.SaliencyGrid(module_data[0][:2], log_dir="gs://bucket/logs")


@pytest.mark.slow
@pytest.mark.parametrize("name", CALLBACKS)
def test_other_threads_see_the_same_model(name, module_data, cache, tmp_path):
    """With a learning rate of zero all answers during `fit` are those of before."""
    x, y = module_data
    robust = hardened(cache)
    robust.base.layers[2].trainable = False
    robust.compile(keras.optimizers.SGD(0.0), "sparse_categorical_crossentropy")
    expected = np.asarray(robust.base(x, training=False))
    answers, stop = [], threading.Event()

    def ask():
        while not stop.is_set():
            answers.append(np.asarray(robust.base(x, training=False)))

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        callback = CALLBACKS[name][0](x, y, tmp_path)
        robust.fit(x, y, epochs=3, validation_data=(x, y), callbacks=[callback], verbose=0)
    finally:
        stop.set()
        thread.join()
    assert len(answers) > 10
    assert all(np.array_equal(answer, expected) for answer in answers)


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


def test_last_figure_is_repeated_and_forgotten_in_the_next_training():
    watch = Scripted([0.1, 0.2, 0.3, 0.4], every=3, name="val_pgd")
    model = linear(4.0)
    history = model.fit(X, Y, epochs=6, verbose=0, callbacks=[watch]).history
    assert history["val_pgd"] == [0.1, 0.1, 0.2, 0.2, 0.2, 0.3]
    assert model.fit(X, Y, verbose=0, callbacks=[watch]).history["val_pgd"] == [0.4]


def test_nothing_is_traced_again(data, plain, fit):
    model, traces = plain(), []
    watch = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: traces.append(model.get_layer("traced").traces)
    )
    fit(model, RobustAccuracy(*data, epsilon=0.1, steps=2), watch, epochs=3)
    assert len(set(traces)) == 1


def test_radius_and_range_of_the_hardened_model(data, hardened):
    x, y = data
    robust = hardened(input_range=(0.0, 255.0), epsilon=8.0)
    watch = RobustAccuracy(255.0 * x, y, steps=2)
    robust.fit(255.0 * x, y, verbose=0, callbacks=[watch])
    assert watch.attack.input_range == (0.0, 255.0)
    assert watch.attack.epsilon == 8.0
    watch = RobustAccuracy(255.0 * x, y, epsilon=3.0, norm=2, steps=2)
    watch.set_model(robust)
    watch.on_train_begin()
    assert (watch.attack.norm, watch.attack.epsilon) == ("l2", 3.0)
    watch = RobustAccuracy(255.0 * x, y, norm="l2")
    watch.set_model(robust)
    with pytest.raises(ValueError, match="has no radius"):
        watch.on_train_begin()


def test_bad_settings():
    for wrong, message in (
        ({"every": 0}, "`every` is out of range"),
        ({"epsilon": -1.0}, "`epsilon` is out of range"),
        ({"steps": 0}, "`steps` is out of range"),
    ):
        with pytest.raises(ValueError, match=message):
            RobustAccuracy(X, Y, **{"epsilon": 0.1, **wrong})


def test_what_does_not_fit_the_model():
    for x, y, epsilon, message in (
        (X, Y + 1, 0.1, "`y` is out of range"),
        (X, Y[:2], 0.1, "one label per example"),
        (X + 1.0, Y, 0.1, "leaves the input range"),
        (X, Y, None, "has no radius"),
    ):
        watch = RobustAccuracy(x, y, epsilon=epsilon)
        with pytest.raises(ValueError, match=message):
            linear(4.0).fit(X, Y, verbose=0, callbacks=[watch])


N = 12


@pytest.fixture
def data_refresh_maps():
    rng = np.random.default_rng(0)
    return rng.uniform(0, 1, (N, 6, 6, 1)).astype("float32"), np.arange(N) % 3


def net_refresh_maps():
    return keras.Sequential([layers.Input((6, 6, 1)), layers.Flatten(), layers.Dense(3)])


def hardened_refresh_maps(model, maps=None):
    robust = kj.harden(model, recipe=kj.JSIGRConfig(epsilon=0.1), saliency_maps=maps, verbose=0)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    robust.compile(keras.optimizers.SGD(0.5), loss)
    return robust


def maps_of(model, data):
    return kj.PerturbationCache.build(model, *data, grid=2, verbose=0)


@pytest.fixture
def cached(data_refresh_maps):
    model = net_refresh_maps()
    return hardened_refresh_maps(model, maps_of(model, data_refresh_maps))


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
    refresh = RefreshMaps(*data_refresh_maps, every=2, start=1)
    history = cached.fit(
        *data_refresh_maps, batch_size=6, epochs=6, verbose=0, callbacks=[refresh, watch]
    ).history
    same = [np.array_equal(a, b) for a, b in zip([first, *watch.codes], watch.codes, strict=False)]
    assert same == [True, False, True, False, True, False]
    assert history["map_hits"] == [1.0] * 6
    assert len(traces) == 1


def test_one_program_makes_the_maps_of_the_present_weights(data_refresh_maps, monkeypatch):
    """Batch normalization, which may be folded into weights, included."""
    inputs = layers.Input((6, 6, 1))
    hidden = layers.BatchNormalization()(layers.Conv2D(4, 3, use_bias=False)(inputs))
    outputs = layers.Dense(3)(layers.Flatten()(layers.Activation("silu")(hidden)))
    model = keras.Model(inputs, outputs)
    robust = hardened_refresh_maps(model, maps_of(model, data_refresh_maps))
    made = []
    original = saliency_cache.perturbation_explainer

    def counted(*args, **kwargs):
        made.append(original(*args, **kwargs))
        return made[-1]

    monkeypatch.setattr(saliency_cache, "perturbation_explainer", counted)
    seen = []

    def compare(epoch, logs=None):
        seen.append(np.array(robust.map_table.codes))
        fresh = maps_of(robust, data_refresh_maps)
        np.testing.assert_array_equal(seen[-1], fresh.codes)
        np.testing.assert_array_equal(robust.map_table.keys, fresh.keys)
        made.pop()  # the one of this comparison

    check = keras.callbacks.LambdaCallback(on_epoch_begin=compare)
    refresh = RefreshMaps(*data_refresh_maps, every=1, start=0)
    robust.fit(*data_refresh_maps, batch_size=6, epochs=3, verbose=0, callbacks=[refresh, check])
    assert len(made) == 1
    assert not np.array_equal(seen[0], seen[2])


def test_a_progress_bar_by_keras_rule(data_refresh_maps, cached, capsys):
    refresh = RefreshMaps(*data_refresh_maps, every=1, start=0, verbose=1)
    cached.fit(*data_refresh_maps, verbose=0, callbacks=[refresh])
    assert capsys.readouterr().out
    keras.config.disable_interactive_logging()
    try:
        cached.fit(*data_refresh_maps, verbose=0, callbacks=[refresh])
    finally:
        keras.config.enable_interactive_logging()
    assert not capsys.readouterr().out


def test_what_is_refused(data_refresh_maps, cached):
    with pytest.raises(ValueError, match="needs cached maps"):
        hardened_refresh_maps(net_refresh_maps()).fit(
            *data_refresh_maps, verbose=0, callbacks=[RefreshMaps(*data_refresh_maps)]
        )
    for wrong in ({"every": 0}, {"start": -1}):
        with pytest.raises(ValueError, match="is out of range"):
            RefreshMaps(*data_refresh_maps, **wrong)
    # A last bit of difference: the maps of the cache would be lost.
    other = RefreshMaps(np.nextafter(data_refresh_maps[0], np.float32(2.0)), data_refresh_maps[1])
    with pytest.raises(ValueError, match="other examples than the cache holds"):
        cached.fit(*data_refresh_maps, epochs=2, callbacks=[other], verbose=0)
    assert int(cached.steps_taken.value) == 0  # told before anything was trained
