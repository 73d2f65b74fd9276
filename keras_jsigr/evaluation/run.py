"""What happened during an evaluation: times, crashes, words for the reader."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from keras_jsigr.core.logits import base_model
from keras_jsigr.evaluation.records import ClassRecord, Rate
from keras_jsigr.evaluation.resume import Store

# An evaluation that is done before needs no progress report.
_LONG = 20.0


class Log:
    """Time the parts of an evaluation and note crashes instead of passing them on."""

    def __init__(self, verbose: Literal["auto", 0, 1]) -> None:
        self.seconds: dict[str, float] = {}
        self.errors: list[str] = []
        self._verbose = verbose
        self._start = time.perf_counter()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Run a part: time it, and note an error of it instead of raising it."""
        start = time.perf_counter()
        self.say(f"{name} ...")
        try:
            yield
        except Exception as error:
            self.errors.append(f"{name}: {in_words(error)}")
            self.say(self.errors[-1])
        finally:
            self.seconds[name] = time.perf_counter() - start

    def say(self, line: str) -> None:
        """Print a line if the user wants to hear of the progress."""
        long = self.total() > _LONG
        if self._verbose == 1 or (self._verbose == "auto" and long):
            print(line, flush=True)

    def total(self) -> float:
        """Return the seconds since the beginning."""
        return time.perf_counter() - self._start


def in_words(error: BaseException) -> str:
    """Say what an error is in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    message = f": {lines[0][:300]}" if lines else ""
    return f"{type(error).__name__}{message}"


def about_model(
    model: Any, input_shape: tuple[int, ...], classes: int
) -> dict[str, Any]:
    """Describe a model for the report."""
    inner = base_model(model)
    hardened = inner is not model
    settings = model.settings if hardened else None
    count = {}
    if isinstance(inner, keras.Model):
        count["parameters"] = int(inner.count_params())
    return {
        "name": model_name(inner),
        **count,
        "classes": classes,
        "input_shape": list(input_shape),
        "hardened": hardened,
        "settings": None if settings is None else settings.get_config(),
    }


def model_name(model: Any) -> str:
    """Return what a model is called."""
    for attribute in ("name", "__name__"):
        name = getattr(model, attribute, None)
        if isinstance(name, str) and name:
            return name
    return type(model).__name__


def versions() -> dict[str, str]:
    """Return the versions of all that takes part."""
    import keras_jsigr

    return {
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "numpy": np.__version__,
        "keras_jsigr": keras_jsigr.__version__,
    }


@dataclass(frozen=True, kw_only=True)
class Task:
    """Hold a checked call of `evaluate`."""

    model: Any
    x: npt.NDArray[Any]
    y: npt.NDArray[np.int64]
    logits: npt.NDArray[np.float32]
    right: npt.NDArray[np.bool_]
    class_names: tuple[str, ...]
    epsilon: float
    norm: str
    input_range: tuple[float, float]
    batch_size: int
    seed: int
    store: Store
    log: Log


def widest_radius(norm: str, input_range: tuple[float, float], size: int) -> float:
    """Return the radius of the ball around any input that holds all others."""
    width = input_range[1] - input_range[0]
    factors: dict[str, float] = {"linf": 1.0, "l2": size**0.5, "l1": float(size)}
    return width * factors[norm]


def by_class(task: Task, robust: npt.NDArray[np.bool_]) -> list[ClassRecord]:
    """Count right answers per class; classes without examples are left out."""

    def rate(right: npt.NDArray[Any], rows: npt.NDArray[Any]) -> Rate:
        return Rate(int(right[rows].sum()), int(rows.sum()))

    return [
        ClassRecord(name=name, clean=rate(task.right, rows), robust=rate(robust, rows))
        for number, name in enumerate(task.class_names)
        if (rows := task.y == number).any()
    ]


def chance(labels: npt.NDArray[np.int64], classes: int) -> float:
    """Return the accuracy of guessing without looking."""
    return max(float(np.bincount(labels).max()) / len(labels), 1.0 / classes)
