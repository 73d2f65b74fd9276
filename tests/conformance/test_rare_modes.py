"""What people also do with `fit`; each on the goldens that it may trouble."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_jsigr as kj

BATCH = 8


EXACT = {"estimator": "exact", "selection": "all", "warmup": 0}


def on(*names):
    return pytest.mark.parametrize("golden", names, indirect=True)


class Batches(keras.utils.PyDataset):
    def __init__(self, golden):
        super().__init__()
        self.golden = golden

    def __len__(self):
        return 2

    def __getitem__(self, index):
        return self.golden.part(index * BATCH, (index + 1) * BATCH)


@pytest.mark.slow
@on("mlp", "two_inputs")
def test_py_dataset(golden, train, reference, assert_same_weights):
    robust = golden.compiled()
    train(golden, robust, Batches(golden))
    assert_same_weights(robust, reference)


@pytest.mark.slow
@on("mlp", "softmax_layer")
def test_class_weights(golden, train, assert_same_weights):
    by_class, by_example = golden.compiled(), golden.compiled()
    weights = {0: 0.5, 1: 2.0, 2: 1.0}
    train(golden, by_class, class_weight=weights)
    per_example = np.array([weights[label] for label in golden.y], "float32")
    train(golden, by_example, sample_weight=per_example)
    assert_same_weights(by_class, by_example)


@pytest.mark.slow
@on("mlp", "subclassed")
def test_one_hot_smoothing(golden, train):
    loss = keras.losses.CategoricalCrossentropy(golden.from_logits, label_smoothing=0.1)
    robust = golden.compiled(loss=loss)
    y = np.eye(3, dtype="float32")[golden.y]
    before = robust.base.get_weights()
    history = robust.fit(
        golden.x, y, batch_size=BATCH, validation_data=(golden.x, y), verbose=0
    ).history
    assert np.isfinite(history["loss"]).all()
    assert not np.array_equal(before[0], robust.base.get_weights()[0])


@pytest.mark.slow
@on("mlp", "resnet")
def test_steps_per_execution(golden, train, reference, assert_same_weights):
    robust = golden.compiled(steps_per_execution=2)
    train(golden, robust)
    assert_same_weights(robust, reference)


@pytest.mark.slow
@on("mlp", "softmax_layer")
def test_gradient_accumulation(golden, train, assert_same_weights):
    """Two half batches accumulated are one whole batch."""
    sgd = keras.optimizers.SGD
    halves = golden.compiled(sgd(0.1, gradient_accumulation_steps=2), harden=EXACT)
    whole = golden.compiled(sgd(0.1), harden=EXACT)
    train(golden, halves)
    train(golden, whole, batch_size=2 * BATCH)
    assert_same_weights(halves.base, whole.base)


@pytest.mark.slow
@on("mlp", "subclassed")
def test_moving_average(golden, train):
    optimizer = keras.optimizers.Adam(1e-2, use_ema=True, ema_momentum=0.5)
    robust = golden.compiled(optimizer)
    train(golden, robust, epochs=2)
    averages = optimizer._model_variables_moving_average
    for variable, average in zip(robust.trainable_variables, averages, strict=True):
        np.testing.assert_array_equal(variable.numpy(), average.numpy())


@pytest.mark.slow
@on("cnn", "two_inputs")
def test_clipping(golden, train):
    robust = golden.compiled(keras.optimizers.SGD(1.0, global_clipnorm=1e-3))
    before = robust.base.get_weights()
    train(golden, robust, golden.x, golden.y, batch_size=16)
    after = robust.base.get_weights()
    moved = sum(np.square(a - b).sum() for a, b in zip(before, after, strict=True))
    assert np.sqrt(moved) == pytest.approx(1e-3, rel=1e-2)


@pytest.mark.slow
@on("cnn", "sigmoid")
def test_train_on_batch(golden):
    robust = golden.compiled()
    before = robust.base.get_weights()
    logs = robust.train_on_batch(*golden.part(0, BATCH), return_dict=True)
    assert {"loss", "task_loss", "jacobian_penalty", "selective_penalty"} <= set(logs)
    assert np.isfinite(list(logs.values())).all()
    assert not np.array_equal(before[0], robust.base.get_weights()[0])
    tested = robust.test_on_batch(*golden.part(0, BATCH), return_dict=True)
    assert set(tested) == {"loss", "accuracy"}


@pytest.mark.slow
@on("mlp", "subclassed")
def test_model_checkpoint(golden, train, assert_same_weights, tmp_path):
    robust = golden.compiled()
    path = tmp_path / "best.keras"
    saver = keras.callbacks.ModelCheckpoint(path, monitor="val_loss")
    train(golden, robust, callbacks=[saver])
    loaded = keras.models.load_model(path)
    assert type(loaded) is kj.JSIGRModel
    assert_same_weights(loaded, robust, atol=0)


class Cut(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 2:
            raise KeyboardInterrupt


@pytest.mark.slow
@on("mlp", "resnet")
def test_backup_and_restore(golden, train, assert_same_weights, tmp_path):
    unbroken, killed, resumed = (golden.compiled() for _ in range(3))
    train(golden, unbroken, epochs=3)

    def backup():
        return keras.callbacks.BackupAndRestore(tmp_path / "backup")

    with pytest.raises(KeyboardInterrupt):
        train(golden, killed, epochs=3, callbacks=[backup(), Cut()])
    # Keras clears the folder only after a run that ended well.
    history = train(golden, resumed, epochs=3, callbacks=[backup()])
    assert len(history["loss"]) == 1
    assert_same_weights(resumed, unbroken)


@pytest.mark.slow
@on("mlp", "cnn")
def test_early_stopping(golden, train):
    robust = golden.compiled(keras.optimizers.SGD(1e-6))
    stopper = keras.callbacks.EarlyStopping(
        monitor="val_loss", min_delta=1.0, patience=1, restore_best_weights=True
    )
    history = train(golden, robust, epochs=5, callbacks=[stopper])
    assert len(history["loss"]) == 2


@pytest.mark.slow
@on("resnet")
def test_statistics_move_once_per_step(golden):
    """BatchNormalization sees the batch once, as in plain training."""
    robust = golden.compiled(keras.optimizers.SGD(0.0))
    keras.utils.set_random_seed(1)
    plain = golden.make()
    plain.compile(keras.optimizers.SGD(0.0), golden.loss())
    for model in (robust, plain):
        model.fit(golden.x, golden.y, batch_size=BATCH, shuffle=False, verbose=0)
    ours, theirs = robust.base.get_weights(), plain.get_weights()
    for left, right in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-5, atol=1e-7)


@pytest.mark.slow
@on("mlp", "softmax_layer")
def test_two_devices_equal_one(golden, two_devices, assert_same_weights):
    one = golden.compiled(harden=EXACT)
    with two_devices.scope():
        two = golden.compiled(harden=EXACT)
    for model in (one, two):
        model.fit(golden.x, golden.y, batch_size=BATCH, shuffle=False, verbose=0)
    assert_same_weights(one, two)


@pytest.mark.slow
@on("mlp", "cnn")
def test_activity_regularizers(golden):
    """Their loss belongs to the training pass, not to an occluded one."""
    inputs = keras.Input(golden.x.shape[1:])
    regular = keras.layers.ActivityRegularization(l2=10.0)
    base = keras.Sequential([inputs, regular, golden.make()])
    robust = kj.harden(base, 0.1, kj.JSIGRConfig(), verbose=0)
    robust.compile(keras.optimizers.SGD(0.0), golden.loss())
    x, y = golden.part(0, BATCH)
    logs = robust.train_on_batch(x, y, return_dict=True)
    base.compile(keras.optimizers.SGD(0.0), golden.loss())
    wanted = base.train_on_batch(x, y)
    assert logs["task_loss"] == pytest.approx(float(wanted), rel=1e-4)


@pytest.mark.slow
@on("mlp", "two_inputs")
def test_traces_at_most_twice(golden, monkeypatch):
    """A smaller last batch and new penalty weights make no third trace."""
    traces = []
    original = kj.JSIGRModel.train_step

    def counted(self, data):
        traces.append(keras.tree.map_structure(lambda t: t.shape, data))
        return original(self, data)

    monkeypatch.setattr(kj.JSIGRModel, "train_step", counted)
    robust = golden.compiled()
    x, y = golden.part(0, 13)
    reported = []
    for weight in (0.0, 0.01, 3.0):
        robust.jacobian_weight.assign(weight)
        robust.selective_weight.assign(weight / 2)
        robust.delay_steps.assign(1)
        history = robust.fit(x, y, batch_size=BATCH, epochs=2, verbose=0).history
        reported.append(history["loss"][-1] - history["task_loss"][-1])
    assert len(traces) <= 2
    assert reported[0] == pytest.approx(0.0, abs=1e-6)
    assert reported[2] > reported[1] > 0


@pytest.mark.slow
@on("mlp", "attention")
def test_generator(golden, train, reference, assert_same_weights):
    def batches():
        for index in range(2):
            yield golden.part(index * BATCH, (index + 1) * BATCH)

    robust = golden.compiled()
    train(golden, robust, batches(), steps_per_epoch=2)
    assert_same_weights(robust, reference)


@pytest.mark.slow
@on("mlp", "two_inputs")
def test_integer_images(golden, train):
    """Integers in the range of a float input train as floats do."""
    robust = golden.compiled(harden={"input_range": (0.0, 255.0)})
    x = dict(golden.x) if isinstance(golden.x, dict) else {"": golden.x}
    first = next(iter(x))
    x[first] = tf.cast(x[first] * 255.0, tf.uint8).numpy()
    x = x[""] if first == "" else x
    history = robust.fit(x, golden.y, batch_size=BATCH, verbose=0).history
    assert np.isfinite(history["loss"]).all()
