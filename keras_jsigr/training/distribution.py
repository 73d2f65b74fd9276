"""Training on several replicas: what Keras' trainer lacks, and backups of a job of many workers.

Keras' own `fit` fails under `tf.distribute.MultiWorkerMirroredStrategy` in two places
(keras-team/keras#20585). `Model._symbolic_build` gets a batch that `Strategy.reduce` was to
average, which takes no nested batch; and the results of a step, which are scalars, are averaged
by `Strategy.reduce(..., axis=0)`, which takes no scalars. Here the batch of one replica is taken,
which has the same structure and shapes, and results become vectors of one entry.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from keras_jsigr.core.files import local_path

_SUFFIX = ".weights.h5"


def is_multi_worker(strategy: Any) -> bool:
    """Tell whether a strategy trains in several processes."""
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return False
    jobs = strategy.cluster_resolver.cluster_spec().as_dict()
    return len([*jobs.get("chief", ()), *jobs.get("worker", ())]) > 1


def symbolic_batch(strategy: Any, iterator: Any, data_batch: Any) -> tuple[Any, Any]:
    """Return what Keras builds metrics and optimizer from: an iterator, or a batch."""
    if iterator is None or not is_multi_worker(strategy):
        return iterator, data_batch
    _, _, batches = next(iter(iterator))
    results = strategy.experimental_local_results
    return None, keras.tree.map_structure(lambda part: results(part)[0], next(batches))


def reducible(results: dict[str, Any]) -> dict[str, Any]:
    """Give the results of a step the axis over which Keras averages those of all workers."""
    if not is_multi_worker(tf.distribute.get_strategy()):
        return results
    return {
        name: keras.tree.map_structure(lambda part: tf.convert_to_tensor(part)[None], value)
        for name, value in results.items()
    }


def ratio_of_means(mean: Any, per_example: Any) -> Any:
    """Divide the mean of one quantity by that of another `(B,)`, over all replicas' examples."""
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return tf.math.divide_no_nan(mean, tf.reduce_mean(per_example))
    count = tf.cast(tf.shape(per_example)[0], tf.float32)
    # A replica gets nothing of a batch smaller than their number: its mean is NaN.
    sums = tf.stack([tf.math.multiply_no_nan(mean, count), tf.reduce_sum(per_example)])
    sums = context.all_reduce(tf.distribute.ReduceOp.SUM, sums)
    return tf.math.divide_no_nan(sums[0], sums[1])


class DistributedBackup(keras.callbacks.Callback):
    """Back up a job of one or many workers after every epoch, and continue it after a fault.

    All workers restore the backup of the first one, from a folder that all can read, so that
    they stand at the same step whenever one was killed. (The backups that
    `keras.callbacks.BackupAndRestore` makes for each worker may be of different epochs.) A
    backup is one file, with weights, optimizer, warm-up and running scores, and has its name
    only once it is complete. Every worker must have the callback: reading some variables
    takes all of them.

    Args:
        folder: Where the backups are, the same for all workers.
        keep: Whether the backup stays when training has ended.

    Raises:
        ValueError: If the folder is not on this machine or in its file system.

    Example:
        >>> import tempfile
        >>> import keras, numpy as np
        >>> import keras_jsigr as kj
        >>> net = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, "softmax")])
        >>> robust = kj.harden(net, epsilon=0.1, verbose=0)
        >>> robust.compile("adam", "sparse_categorical_crossentropy")
        >>> x, y = np.random.default_rng(0).uniform(size=(8, 4)), np.arange(8) % 3
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     backup = kj.callbacks.DistributedBackup(folder, keep=True)
        ...     first = backup.restore(robust)
        ...     _ = robust.fit(x, y, epochs=2, initial_epoch=first, callbacks=[backup], verbose=0)
        ...     first, backup.restore(robust)
        (0, 2)
    """

    def __init__(self, folder: str | os.PathLike[str], *, keep: bool = False) -> None:
        super().__init__()
        self._folder = local_path(folder)
        self._keep = keep
        self._restored = False

    def restore(self, model: keras.Model) -> int:
        """Load the newest backup, if there is one.

        Args:
            model: The compiled model, made as in the run before.

        Returns:
            The number of finished epochs, for `fit(..., initial_epoch=)`.

        Raises:
            ValueError: If the backup is damaged or one of another model, or `model` is
                not compiled.
        """
        optimizer = getattr(model, "optimizer", None)
        if optimizer is None:
            raise ValueError(
                "A backup holds the optimizer: got a model that is not compiled. Call "
                "`compile` as in the run before, then `restore`."
            )
        found = self._backups()
        self._restored = True
        if not found:
            return 0
        with model.distribute_strategy.scope():
            if not optimizer.built:
                optimizer.build(model.trainable_variables)
            try:
                model.load_weights(found[-1])
            except OSError as error:
                raise ValueError(
                    f"The backup '{found[-1]}' is damaged: {error}. Delete it to train anew."
                ) from error
        return int(found[-1].name.removesuffix(_SUFFIX).removeprefix("epoch-"))

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Refuse to train beside a backup that was not restored."""
        if not self._restored and self._backups():
            raise ValueError(
                f"'{self._folder}' holds a backup: got a model that was not restored from it. "
                "Call `first = backup.restore(model)`, then `fit(..., initial_epoch=first)`; "
                "or delete the folder to train anew."
            )

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Write the backup of this epoch, then delete the one before."""
        is_first = _is_first_worker(self.model.distribute_strategy)
        place = self._folder if is_first else None
        if is_first:
            self._folder.mkdir(parents=True, exist_ok=True)
        # All workers, because some variables are sums over them; one gives it a name.
        with tempfile.TemporaryDirectory(prefix=".backup.", dir=place) as scratch:
            file = Path(scratch) / f"epoch-{epoch + 1:06d}{_SUFFIX}"
            keras.Model.save_weights(self.model, file)
            if not is_first:
                return
            before = self._backups()
            with open(file, "rb") as written:
                os.fsync(written.fileno())
            os.replace(file, self._folder / file.name)
        for old in before:
            if old.name != file.name:
                old.unlink(missing_ok=True)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Delete the backup, unless it is to stay."""
        if not self._keep and _is_first_worker(self.model.distribute_strategy):
            for old in self._backups():
                old.unlink(missing_ok=True)

    def _backups(self) -> list[Path]:
        return sorted(self._folder.glob(f"epoch-??????{_SUFFIX}"))


def _is_first_worker(strategy: Any) -> bool:
    """Tell whether this process is the one that writes."""
    if not is_multi_worker(strategy):
        return True
    resolver = strategy.cluster_resolver
    has_chief = "chief" in resolver.cluster_spec().jobs
    return bool(resolver.task_type == "chief" or (not has_chief and resolver.task_id == 0))
