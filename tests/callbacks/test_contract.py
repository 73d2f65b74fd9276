"""What every callback promises: it works in `fit` and leaves the training alone."""

import threading

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_jsigr as kj
from keras_jsigr import callbacks

# The callback, and whether it is meant to change the training.
CALLBACKS = {
    "AccuracyConstraint": (
        lambda x, y, folder: callbacks.AccuracyConstraint(reference=0.9),
        True,
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


def hardened(cache):
    config = kj.JSIGRConfig(
        epsilon=0.1, jacobian_weight=0.01, selective_weight=0.01, check_gradients=False
    )
    robust = kj.harden(net(), recipe=config, saliency_maps=cache, warmup=0, verbose=0)
    robust.compile(keras.optimizers.SGD(0.05), "sparse_categorical_crossentropy")
    return robust


def train(model, data, *callbacks):
    settings = {"epochs": 2, "batch_size": 8, "shuffle": False, "verbose": 0}
    return model.fit(
        *data, validation_data=data, callbacks=list(callbacks), **settings
    ).history


@pytest.fixture(scope="module")
def alone(module_data, cache):
    """The variables after a training without callbacks."""
    model = hardened(cache)
    train(model, module_data)
    return [np.array(variable) for variable in model.variables]


@pytest.mark.parametrize("name", CALLBACKS)
def test_training_with_it(name, module_data, cache, alone, tmp_path, capsys):
    make, adapts = CALLBACKS[name]
    watched = hardened(cache)
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
            lambda stream: callbacks.RobustAccuracy(stream, None, epsilon=0.1),
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
        robust.fit(
            x, y, epochs=3, validation_data=(x, y), callbacks=[callback], verbose=0
        )
    finally:
        stop.set()
        thread.join()
    assert len(answers) > 10
    assert all(np.array_equal(answer, expected) for answer in answers)
