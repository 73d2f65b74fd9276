"""One cell of a transfer matrix: examples against one source, tried on the targets."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from keras_jsigr.attacks.calls.inside import inside
from keras_jsigr.attacks.calls.predictions import classified_rightly, predict_logits
from keras_jsigr.evaluation.identity import data_identity, model_identity
from keras_jsigr.evaluation.parts.attack_rows import describe
from keras_jsigr.evaluation.rate import Rate
from keras_jsigr.evaluation.records import TransferRecord
from keras_jsigr.evaluation.store import Piece, Store

Labels = Literal["true", "own"]


class Cell(NamedTuple):
    """Examples made against one source by one attack at one radius, on all targets.

    Attributes:
        source: Name of the model attacked.
        attack: Name of the attack.
        epsilon: Radius in input units.
        right: Per target, bool `(N,)`: rightly classified.
        seconds: Wall time.
        outside: Number of points that were not finite, or outside of the ball or the
            range; the example itself was tried in their place.
        fingerprint: Of the source.
    """

    source: str
    attack: str
    epsilon: float
    right: dict[str, npt.NDArray[np.bool_]]
    seconds: float
    outside: int = 0
    fingerprint: str = ""


class TransferBench:
    """Make and judge transferred examples of a fixed set of models and data.

    Args:
        models: Sources and targets by name.
        x: Float `(N, *S)`, checked.
        y: Integers `(N,)`, checked.
        labels: Whether the examples leave the `"true"` class or the source's `"own"`
            decision.
        batch_size: Examples per call of a model.
        store: Keeps finished cells.

    Example:
        >>> import numpy as np
        >>> from keras_jsigr.attacks import FGSM
        >>> from keras_jsigr.evaluation.store import Store
        >>> from keras_jsigr.evaluation.transfer_cell import TransferBench
        >>> x, y = np.array([[0.6, 0.4]], "float32"), np.array([0])
        >>> models = {"a": lambda x: x, "b": lambda x: x * [1.0, 0.1]}
        >>> bench = TransferBench(models, x, y, "true", 128, Store(None, {}))
        >>> bench.cell("a", FGSM(epsilon=0.2), ["a", "b"]).right
        {'a': array([False]), 'b': array([ True])}
    """

    def __init__(
        self,
        models: Mapping[str, Any],
        x: npt.NDArray[Any],
        y: npt.NDArray[np.int64],
        labels: Labels,
        batch_size: int,
        store: Store,
    ) -> None:
        self._models = models
        self._x, self._y = x, y
        self._labels = labels
        self._batch_size = batch_size
        self._store = store

    @cached_property
    def _identities(self) -> dict[str, str]:
        return {name: model_identity(m, self._x) for name, m in self._models.items()}

    @cached_property
    def _data(self) -> str:
        return data_identity(self._x, self._y)

    def cell(self, source: str, attack: Any, targets: Sequence[str]) -> Cell:
        """Make examples against one model and try them on others, or find them done.

        Args:
            source: Name of the model to attack.
            attack: With its radius.
            targets: Names of the models to try the examples on.

        Returns:
            The cell.
        """

        def make() -> Piece:
            start = time.perf_counter()
            y = self._y if self._labels == "true" else None
            x_adv = np.asarray(attack(self._models[source], self._x, y))
            x_adv = x_adv.astype(self._x.dtype)
            norm, ends = attack.norm, attack.input_range
            valid = inside(x_adv, self._x, attack.epsilon, norm, ends)
            x_adv[~valid] = self._x[~valid]
            # By number: a name may hold what no archive can.
            arrays = {
                f"right_{number}": classified_rightly(
                    predict_logits(self._models[name], x_adv, self._batch_size), self._y
                )
                for number, name in enumerate(targets)
            }
            seconds = time.perf_counter() - start
            return Piece(arrays, {"seconds": seconds, "outside": int((~valid).sum())})

        wanted = {
            "attack": describe(attack),
            "labels": self._labels,
            "data": self._data,
            "source": self._identities[source],
            "targets": [self._identities[name] for name in targets],
        }
        piece = self._store.piece("transfer", wanted, make)
        right = {name: piece.arrays[f"right_{i}"] for i, name in enumerate(targets)}
        # Pieces of earlier versions do not say.
        seconds, outside = piece.info["seconds"], piece.info.get("outside", 0)
        return Cell(
            source=source,
            attack=attack.name,
            epsilon=attack.epsilon,
            right=right,
            seconds=seconds,
            outside=outside,
            fingerprint=self._identities[source][:16],
        )


def records_of(cell: Cell, counted: npt.NDArray[np.bool_]) -> list[TransferRecord]:
    """Turn a cell into records.

    Args:
        cell: The cell.
        counted: Bool `(N,)`: the examples to count, at least one.

    Returns:
        One record per target.
    """
    total = int(counted.sum())
    return [
        TransferRecord(
            source=cell.source,
            target=target,
            attack=cell.attack,
            epsilon=cell.epsilon,
            accuracy=Rate(int(right[counted].sum()), total),
            fingerprint=cell.fingerprint,
        )
        for target, right in cell.right.items()
    ]
