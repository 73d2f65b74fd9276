"""Training in several processes and on several devices equals training on one."""

import importlib.util
import json
import os
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_jsigr as kj
from keras_jsigr.training.distribution import symbolic_batch

ROOT = Path(__file__).parents[2]
EXACT = {"jacobian_weight": 0.02, "selective_weight": 0.05, "estimator": "exact"}
# No random numbers: each replica draws its own.
CASES = {
    "live maps": {
        **EXACT,
        "selective_target": "score",
        "live_maps": kj.LiveMaps(samples=None, grid=2),
        "check_gradients": False,
    },
    "cached maps": {
        **EXACT,
        "selective_target": "score",
        "alignment_weight": 0.02,
        "selection": "hard",
        "check_gradients": False,
    },
}
BATCH, STEPS, EPOCHS = 24, 4, 3
STATES = ("steps_taken", "warmup_steps", "mean_change", "map_spread")


def load_example():
    """The launcher of examples/multi_worker.py."""
    spec = importlib.util.spec_from_file_location("multi_worker", ROOT / "examples/multi_worker.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def digits():
    """Images and labels that a small network learns."""
    data = kj.datasets.load("fashion_mnist", verbose=False)
    x = tf.nn.avg_pool2d(data.x_train[: BATCH * STEPS], 4, 4, "VALID").numpy()
    return x, data.y_train[: BATCH * STEPS].astype("int32")


def hardened(case, optimizer=None):
    keras.utils.set_random_seed(1)
    net = keras.Sequential(
        [
            keras.Input((7, 7, 1)),
            keras.layers.Conv2D(4, 3, activation="silu"),
            keras.layers.Flatten(),
            keras.layers.Dropout(0.0),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )
    recipe = kj.JSIGRConfig(**CASES[case]) if case in CASES else None
    maps = kj.PerturbationCache.build(net, *digits(), grid=2, verbose=0)
    settings = {"recipe": recipe} if recipe else {"epsilon": 0.1}
    settings |= {"saliency_maps": maps} if case == "cached maps" else {}
    robust = kj.harden(net, **settings, warmup=0.5, verbose=0)
    robust.compile(
        optimizer or keras.optimizers.Adam(0.01),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    return robust


def measured(robust, history):
    """Weights, states and history by name, as arrays."""
    arrays = {f"weight {i}": w for i, w in enumerate(robust.base.get_weights())}
    arrays |= {n: keras.ops.convert_to_numpy(getattr(robust, n)) for n in STATES}
    return arrays | {f"log {name}": np.array(v) for name, v in history.items()}


def train(case, strategy, save=None):
    """Train in the scope of a strategy, validate, evaluate, predict and save."""
    (x, y), settings = digits(), {"batch_size": BATCH, "verbose": 0}
    with strategy.scope():
        robust = hardened(case)
    history = robust.fit(
        x, y, epochs=EPOCHS, shuffle=False, validation_data=(x, y), **settings
    ).history
    evaluated = robust.evaluate(x, y, **settings)
    predicted = robust.predict(x, **settings)
    # One step from a stream: its first batch is looked at before it is trained on.
    stream = tf.data.Dataset.from_tensor_slices((x, y)).batch(BATCH)
    sharding = tf.data.Options()
    sharding.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    robust.fit(stream.with_options(sharding), shuffle=False, verbose=0)
    if save:
        robust.save(save)
    return measured(robust, history) | {"evaluated": evaluated, "predicted": predicted}


def check_equal(found, wanted, atol):
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=atol, err_msg=name)


class BuiltSymbolically(keras.Sequential):
    """The first of the two faults of Keras' trainer mended."""

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        found = symbolic_batch(self.distribute_strategy, iterator, data_batch)
        super()._maybe_symbolic_build(*found)


def work(task, folder):
    """What a process does that this file was started as."""
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    index = strategy.cluster_resolver.task_id
    if task == "equal":
        for case in (*CASES, "default"):
            path = folder / f"{case} {index}.keras"
            np.savez(path.with_suffix(".npz"), **train(case, strategy, path))
    elif task in ("keras", "symbolic build"):
        kind = keras.Sequential if task == "keras" else BuiltSymbolically
        with strategy.scope():
            net = kind([keras.Input((7, 7, 1)), keras.layers.Flatten()])
            net.add(keras.layers.Dense(10, activation="softmax"))
            net.compile("sgd", "sparse_categorical_crossentropy")
        net.fit(*digits(), batch_size=BATCH, verbose=0)
    else:
        train_with_backups(strategy, folder, index)


def train_with_backups(strategy, folder, index):
    """Train slowly enough to be killed, and say after every step how far it got."""
    x, y = map(tf.constant, digits())
    with strategy.scope():
        robust = hardened("default")
    backup = kj.callbacks.DistributedBackup(folder / "backup")
    first = backup.restore(robust)

    def tell(batch, logs=None):
        (folder / f"steps {index}").write_text(str(int(robust.steps_taken.numpy())))

    def order(epoch):
        seed = tf.stack([0, tf.cast(epoch, tf.int32)])
        indices = tf.random.experimental.stateless_shuffle(tf.range(len(x)), seed)
        return tf.data.Dataset.from_tensor_slices(indices)

    stream = tf.data.Dataset.range(first, 6).flat_map(order)
    stream = stream.map(lambda i: (x[i], y[i])).batch(BATCH, drop_remainder=True)
    sharding = tf.data.Options()
    sharding.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    history = robust.fit(
        stream.with_options(sharding),
        epochs=5,
        initial_epoch=first,
        steps_per_epoch=STEPS,
        callbacks=[backup, keras.callbacks.LambdaCallback(on_train_batch_end=tell)],
        shuffle=False,
        verbose=0,
    ).history
    np.savez(folder / f"result {index}.npz", **measured(robust, {"loss": history["loss"][-1:]}))


def start(task, folder, count):
    folder.mkdir(exist_ok=True)
    command = [sys.executable, __file__, task, str(folder)]
    return load_example().start_workers(command, count, folder)


def finish(workers, folder):
    done = load_example().run_workers(workers, timeout=300)
    logs = "\n".join(path.read_text()[-3000:] for path in sorted(folder.glob("*.log")))
    return done, logs


def arrays_of(path):
    with np.load(path) as file:
        return dict(file)


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 3])
def test_several_workers_train_as_one(tmp_path, count):
    done, logs = finish(start("equal", tmp_path, count), tmp_path)
    assert done, logs
    for case in (*CASES, "default"):
        found = [arrays_of(tmp_path / f"{case} {i}.npz") for i in range(count)]
        for other in found[1:]:  # bit for bit
            for name in found[0]:
                np.testing.assert_array_equal(other[name], found[0][name], err_msg=name)
        wanted = train(case, tf.distribute.get_strategy())
        if case in CASES:
            check_equal(found[0], wanted, 2e-5)
            loaded = keras.models.load_model(tmp_path / f"{case} 0.keras")
            assert loaded.optimizer.iterations == STEPS * (EPOCHS + 1)
            check_equal(measured(loaded, {}), {n: wanted[n] for n in measured(loaded, {})}, 2e-5)
        else:  # every worker draws random numbers of its own
            assert int(found[0]["steps_taken"]) == STEPS * (EPOCHS + 1)
            np.testing.assert_allclose(found[0]["log loss"], wanted["log loss"], rtol=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_two_devices_train_as_one(case):
    two = tf.distribute.MirroredStrategy(
        ["CPU:0", "CPU:1"], cross_device_ops=tf.distribute.ReductionToOneDevice()
    )
    check_equal(train(case, two), train(case, tf.distribute.get_strategy()), 2e-5)


@pytest.mark.slow
def test_a_killed_worker_changes_nothing(tmp_path):
    """Killed after 7 steps, one and a half epochs before the end of the third."""
    undisturbed, disturbed = tmp_path / "undisturbed", tmp_path / "disturbed"
    done, logs = finish(start("backup", undisturbed, 2), undisturbed)
    assert done, logs
    workers = start("backup", disturbed, 2)
    told = disturbed / "steps 1"
    while not told.exists() or int(told.read_text() or 0) < STEPS + 2:
        assert all(worker.poll() is None for worker in workers), finish(workers, disturbed)[1]
        time.sleep(0.001)
    workers[1].kill()
    assert not finish(workers, disturbed)[0]
    assert len(list((disturbed / "backup").glob("epoch-*.weights.h5"))) == 1
    done, logs = finish(start("backup", disturbed, 2), disturbed)
    assert done, logs
    for index in range(2):
        found, wanted = (arrays_of(f / f"result {index}.npz") for f in (disturbed, undisturbed))
        for name, value in wanted.items():
            np.testing.assert_array_equal(found[name], value, err_msg=name)
    assert list((disturbed / "backup").iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "told"), [("keras", "PerReplica"), ("symbolic build", "reduction_indices")]
)
def test_keras_alone_still_fails_on_several_workers(tmp_path, task, told):
    """When these fail, `symbolic_batch` or `reducible` is no longer needed (keras#20585)."""
    done, logs = finish(start(task, tmp_path, 2), tmp_path)
    assert not done
    assert told in logs


@pytest.mark.slow
def test_backups_go_on_where_they_stopped(tmp_path):
    x, y = digits()
    settings = {"epochs": 3, "batch_size": BATCH, "shuffle": False, "verbose": 0}
    whole = hardened("live maps")
    whole.fit(x, y, **settings)
    broken, backup = hardened("live maps"), kj.callbacks.DistributedBackup(tmp_path, keep=True)
    assert backup.restore(broken) == 0

    def stop(epoch, logs=None):
        if epoch == 2:
            raise KeyboardInterrupt

    stopped = keras.callbacks.LambdaCallback(on_epoch_begin=stop)
    with pytest.raises(KeyboardInterrupt):
        broken.fit(x, y, **settings, callbacks=[backup, stopped])
    assert [path.name for path in tmp_path.iterdir()] == ["epoch-000002.weights.h5"]
    with pytest.raises(ValueError, match="was not restored"):
        broken.fit(x, y, **settings, callbacks=[kj.callbacks.DistributedBackup(tmp_path)])
    again, backup = hardened("live maps"), kj.callbacks.DistributedBackup(tmp_path)
    first = backup.restore(again)
    assert first == 2
    again.fit(x, y, **settings, initial_epoch=first, callbacks=[backup])
    for value, wanted in zip(again.variables, whole.variables, strict=True):
        np.testing.assert_array_equal(value, wanted, err_msg=value.path)
    for value, wanted in zip(again.optimizer.variables, whole.optimizer.variables, strict=True):
        np.testing.assert_array_equal(value, wanted, err_msg=value.path)
    assert list(tmp_path.iterdir()) == []


def test_backups_refuse_what_they_cannot_restore(tmp_path):
    backup = kj.callbacks.DistributedBackup(tmp_path)
    net = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    with pytest.raises(ValueError, match="not compiled"):
        backup.restore(kj.harden(net, 0.1, verbose=0))
    (tmp_path / "epoch-000001.weights.h5").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="is damaged"):
        backup.restore(hardened("live maps"))
    with pytest.raises(ValueError, match="URL of a store"):
        kj.callbacks.DistributedBackup("gs://bucket/backup")


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    print(json.loads(os.environ["TF_CONFIG"])["task"])
    work(sys.argv[1], Path(sys.argv[2]))
