"""Train a hardened model on several workers, and go on after one of them is lost.

    python examples/multi_worker.py --workers 2 --out multi_worker    # all on this machine

starts the workers as processes of this machine, and all of them again when one dies. On many
machines start the same script on each, with the addresses of all in `TF_CONFIG` and a folder
that all can read:

    export TF_CONFIG='{"cluster": {"worker": ["10.0.0.1:2222", "10.0.0.2:2222"]},
                       "task": {"type": "worker", "index": 0}}'
    python examples/multi_worker.py --out /shared/multi_worker

with index 1 on the second. There the scheduler starts all of them again after a fault.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path


def main() -> None:
    """Be a worker where TF_CONFIG says so; else start some."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--workers", type=int, default=2, help="processes on this machine")
    parser.add_argument("--restarts", type=int, default=3, help="how often to start again")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=128, help="of all workers together")
    parser.add_argument("--out", type=Path, default=Path("multi_worker"))
    options = parser.parse_args()
    if "TF_CONFIG" in os.environ or options.workers == 1:
        train(options.out, options.epochs, options.batch_size)
        return
    command = [sys.executable, *sys.argv]
    for attempt in range(options.restarts + 1):
        if run_workers(start_workers(command, options.workers)):
            return
        print(f"a worker failed, attempt {attempt + 1}", flush=True)
    raise SystemExit(f"The workers failed {options.restarts + 1} times.")


def train(out: Path, epochs: int, batch_size: int) -> None:
    """Train as one of the workers."""
    import tensorflow as tf

    # Before anything else of TensorFlow: the strategy connects the workers.
    alone = "TF_CONFIG" not in os.environ
    strategy = (
        tf.distribute.get_strategy() if alone else tf.distribute.MultiWorkerMirroredStrategy()
    )
    index = 0 if alone else strategy.cluster_resolver.task_id

    import keras

    import keras_jsigr as kj

    # The same on all workers: they cut their parts out of the same batches.
    keras.utils.set_random_seed(0)
    data = kj.datasets.load("fashion_mnist", verbose=False)
    with strategy.scope():
        model = keras.Sequential(
            [
                keras.Input((28, 28, 1), name="image"),
                keras.layers.Conv2D(16, 4, strides=2, activation="silu"),
                keras.layers.Conv2D(32, 4, strides=2, activation="silu"),
                keras.layers.Flatten(),
                keras.layers.Dense(100, activation="silu"),
                keras.layers.Dense(10, activation="softmax"),
            ]
        )
        robust = kj.harden(model, epsilon=0.1, verbose=0)
        robust.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    backup = kj.callbacks.DistributedBackup(out / "backup")
    first = backup.restore(robust)
    steps = len(data.x_train) // batch_size

    def shuffled(epoch: tf.Tensor) -> tf.data.Dataset:
        # By the number of the epoch: a job that starts again sees the order it would have seen.
        order = tf.random.experimental.stateless_shuffle(
            tf.range(len(data.x_train)), tf.stack([0, tf.cast(epoch, tf.int32)])
        )
        return tf.data.Dataset.from_tensor_slices(order[: steps * batch_size])

    x, y = tf.constant(data.x_train), tf.constant(data.y_train)
    dataset = tf.data.Dataset.range(first, max(first, epochs) + 1).flat_map(shuffled)
    dataset = dataset.map(lambda i: (x[i], y[i])).batch(batch_size, drop_remainder=True)
    options = tf.data.Options()
    # Every worker reads all and keeps its part of each batch.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    started = time.perf_counter()
    robust.fit(
        dataset.with_options(options),
        epochs=epochs,
        initial_epoch=first,
        steps_per_epoch=steps,
        callbacks=[backup],
        shuffle=False,  # the dataset is
        verbose=2 if index == 0 else 0,
    )
    seconds = time.perf_counter() - started
    loss, accuracy = robust.evaluate(data.x_test, data.y_test, batch_size=200, verbose=0)
    if index == 0:
        robust.base.save(out / "model.keras")
        print(f"loss {loss:.4f}, accuracy {accuracy:.4f}, {seconds:.0f} s", flush=True)


def start_workers(
    command: Sequence[str], count: int, logs: Path | None = None
) -> list[subprocess.Popen[bytes]]:
    """Start one command as so many workers on the loopback address."""
    # The system finds free ports; the workers open them a moment later.
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        addresses = [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
    workers = []
    for index in range(count):
        task = {"type": "worker", "index": index}
        config = {"cluster": {"worker": addresses}, "task": task}
        # The processes share the cores, and on a machine with GPUs they would share those.
        environment = {**os.environ, "TF_CONFIG": json.dumps(config), "CUDA_VISIBLE_DEVICES": "-1"}
        with ExitStack() as stack:
            log = stack.enter_context(open(logs / f"{index}.log", "ab")) if logs else None
            workers.append(
                subprocess.Popen(
                    list(command), env=environment, stdout=log, stderr=subprocess.STDOUT
                )
                if log
                else subprocess.Popen(list(command), env=environment)
            )
    return workers


def run_workers(workers: Sequence[subprocess.Popen[bytes]], timeout: float = 86_400.0) -> bool:
    """Wait for all workers; end the others when one fails, because they wait for it."""
    deadline = time.monotonic() + timeout
    try:
        while time.monotonic() < deadline:
            codes = [worker.poll() for worker in workers]
            if all(code == 0 for code in codes):
                return True
            if any(code not in (None, 0) for code in codes):
                return False
            time.sleep(0.1)
        return False
    finally:
        for worker in workers:
            worker.kill()
        for worker in workers:
            worker.wait()


if __name__ == "__main__":
    main()
