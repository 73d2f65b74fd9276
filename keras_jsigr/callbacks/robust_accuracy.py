"""Accuracy under attack as a metric that callbacks can monitor."""

from __future__ import annotations

import warnings
import zlib
from abc import abstractmethod
from typing import Any

import keras
import numpy as np

from keras_jsigr.attacks.base import check_inputs, check_model
from keras_jsigr.attacks.pgd import PGD
from keras_jsigr.core import arguments
from keras_jsigr.core.batching import CompiledCache, classified_rightly, predict_logits
from keras_jsigr.core.scores import target_rows
from keras_jsigr.core.streams import Blocks, is_stream


def check_arrays(callback: str, x: Any) -> None:
    """Refuse datasets and generators: a callback reads the same arrays every time."""
    plain = (int, float, str, bytes, type(None))
    for leaf in keras.tree.flatten(x):
        if not hasattr(leaf, "shape") and not isinstance(leaf, plain):
            raise TypeError(
                f"{callback} reads the same data again: got {type(leaf).__name__}, "
                "expected arrays, for instance a batch: `x, y = next(iter(data))`."
            )


def check_one_input(callback: str, x: Any, y: Any) -> None:
    """Refuse the arrays of several inputs, which NumPy may stack to one."""
    check_arrays(callback, x)
    several = isinstance(x, dict)
    if isinstance(x, list | tuple) and any(hasattr(part, "shape") for part in x):
        shapes = {np.shape(part) for part in x}
        labels = len(x) if y is None or not np.ndim(y) else len(y)
        several = len(shapes) > 1 or labels != len(x)
    if several:
        raise ValueError(
            f"{callback} attacks models of one input: got {len(x)} arrays of shapes "
            f"{[np.shape(part) for part in keras.tree.flatten(x)]}, expected one array "
            "(N, ...). For a model of several inputs leave the callback out."
        )


class EpochMeasurement(keras.callbacks.Callback):
    """Add numbers to the logs of an epoch, for the callbacks that come later."""

    def __init__(self, every: int = 1) -> None:
        super().__init__()
        self.every = arguments.count("every", every)
        self._measured: dict[str, float] = {}

    @abstractmethod
    def measure(self, logs: dict[str, Any]) -> dict[str, float]:
        """Return the numbers by the names they are reported under."""

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Forget the numbers of an earlier training."""
        self._measured = {}

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Measure every `every` epochs, and repeat the last numbers in between."""
        logs = {} if logs is None else logs
        if not self._measured or (epoch + 1) % self.every == 0:
            self._measured = self.measure(logs)
        logs.update(self._measured)


class RobustAccuracy(EpochMeasurement):
    """Measure the accuracy under PGD on a fixed slice of data every few epochs.

    The figure is the share of examples that are classified correctly both unperturbed
    and under PGD, which starts from the same random points every time. It is logged as
    `val_robust_accuracy`: put this callback *before* those that read it, and tell them
    the direction (`mode="max"`). Use it to choose among epochs; for a figure to publish
    `keras_jsigr.evaluate_robustness` attacks harder, on data that chose nothing.

    Args:
        x: Validation inputs, float `(N, *S)`, as `fit` receives them. A few hundred
            are enough to compare epochs by. Or a batched `tf.data.Dataset` or
            `keras.utils.PyDataset` of `(x, y)`, which is read once per measurement.
        y: Their labels `(N,)` or one-hot; `None` with a dataset.
        epsilon: Radius in input units, >= 0; `None`: that of the hardened model, for
            `"linf"`.
        norm: `"linf"`, `"l2"` or `"l1"`, or `np.inf`, 2 or 1.
        steps: Steps of PGD, >= 1.
        input_range: `(low, high)` of the inputs; `None`: that of the hardened model, or
            (0, 1).
        every: Number of epochs between measurements, >= 1; in between the last figure
            is repeated.
        name: What the figure is called in the logs.
        batch_size: Number of examples attacked at once.
        seed: Of the random start.

    Raises:
        TypeError: If a setting has the wrong type.
        ValueError: If a setting is out of range; at the start of training, if the data
            do not fit the model or no radius is known.

    Reference:
        arXiv 1706.06083.

    Example:
        >>> import keras, numpy as np
        >>> import keras_jsigr as kj
        >>> x, y = np.random.rand(32, 4).astype("float32"), np.arange(32) % 3
        >>> net = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, activation="softmax")])
        >>> net.compile("adam", "sparse_categorical_crossentropy")
        >>> watch = kj.callbacks.RobustAccuracy(x, y, epsilon=0.1)
        >>> stop = keras.callbacks.EarlyStopping("val_robust_accuracy", mode="max")
        >>> log = net.fit(x, y, epochs=2, callbacks=[watch, stop], verbose=0).history
        >>> len(log["val_robust_accuracy"])
        2
    """

    def __init__(
        self,
        x: Any,
        y: Any = None,
        *,
        epsilon: float | None = None,
        norm: Any = "linf",
        steps: int = 10,
        input_range: tuple[float, float] | None = None,
        every: int = 1,
        name: str = "val_robust_accuracy",
        batch_size: int = 128,
        seed: int = 0,
    ) -> None:
        super().__init__(every)
        if not is_stream(x):
            check_one_input("RobustAccuracy", x, y)
            x = np.asarray(x, np.float32)
        self.x, self.y = x, y
        self.name = name
        self.attack = PGD(
            epsilon,
            norm=norm,
            steps=steps,
            input_range=input_range,
            batch_size=batch_size,
            seed=seed,
            early_stop=True,
            verbose=0,
        )
        self._given = self.attack
        self._programs = CompiledCache()
        self._opened: Blocks | None = None
        self._seen: int | None = None

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Check that the data fit the model."""
        super().on_train_begin(logs)
        check_model(self.model)
        self.attack = self._given.for_model(self.model)
        # The first measurement goes on from here: a generator may give its data once.
        self._opened = self._blocks()
        x, y = self._opened.head.x, self._opened.head.y
        if not is_stream(self.x):
            x, y = self.x, self.y
        check_inputs(np.asarray(x, np.float32), self.attack.input_range or (0.0, 1.0))
        some = np.asarray(x[:1], np.float32)
        self._classes = predict_logits(self.model, some, programs=self._programs).shape[-1]
        self._labels(x, y)

    def measure(self, logs: dict[str, Any]) -> dict[str, float]:
        """Attack the slice with the present weights."""
        blocks, self._opened = self._opened or self._blocks(), None
        right = total = seen = 0
        for block in blocks:
            x, labels = np.asarray(block.x, np.float32), self._labels(block.x, block.y)
            number = block.first // self.attack.batch_size
            attack = self.attack.with_settings(first_batch=number)
            robust = self._right(x, labels)
            robust &= self._right(attack(self.model, x, labels), labels)
            right, total = right + int(robust.sum()), total + len(x)
            if is_stream(self.x):
                seen += sum(zlib.crc32(row.tobytes()) for row in x)
        if self._seen not in (None, seen):
            warnings.warn(
                "RobustAccuracy got other examples from its dataset than before, expected the same "
                "in any order: figures of two epochs do not compare. Choose them before they are "
                "shuffled or augmented, or keep them by `dataset.cache()`.",
                RuntimeWarning,
                stacklevel=2,
            )
        self._seen = seen
        return {self.name: right / total}

    def _blocks(self) -> Blocks:
        return Blocks(self.x, self.y, model=self.model, batch_size=self.attack.batch_size)

    def _labels(self, x: Any, y: Any) -> Any:
        """Return the classes of labels, checked."""
        if y is None:
            raise ValueError(
                "RobustAccuracy has no labels: got only inputs, expected (x, y). Pass `y`, or a "
                "dataset of pairs."
            )
        return np.asarray(target_rows(y, len(x), self._classes)).argmax(-1)

    def _right(self, x: Any, labels: Any) -> Any:
        size = self.attack.batch_size
        logits = predict_logits(self.model, x, size, self._programs)
        return classified_rightly(logits, labels)
