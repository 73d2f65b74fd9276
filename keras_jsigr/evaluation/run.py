"""What the parts of an evaluation share: the checked call, its log, model summaries."""

from __future__ import annotations

import platform
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from keras_jsigr.core.arguments import tell
from keras_jsigr.core.logits import base_model, is_hardened
from keras_jsigr.evaluation.records import ClassRecord, Rate
from keras_jsigr.evaluation.resume import ResultCache

# With verbose="auto", progress is told after so many seconds.
_LONG = 20.0


class Log:
    """Time the parts of an evaluation; note their errors instead of raising them."""

    def __init__(self, verbose: Any) -> None:
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
        """Print a line by the rule for `verbose`; with "auto" only if it takes long."""
        if self._verbose != "auto" or self.total() > _LONG:
            tell(line, self._verbose)

    def total(self) -> float:
        """Return the seconds since the beginning."""
        return time.perf_counter() - self._start


def first_line(text: str | None) -> str | None:
    """Return the first line of a text that is not empty, or `None`."""
    lines = [line.strip() for line in (text or "").splitlines() if line.strip()]
    return lines[0][:300] if lines else None


class AttackFailedError(RuntimeError):
    """An attack crashed; the message is that of its error, with the error's name."""


def in_words(error: BaseException) -> str:
    """Say what an error is in one line."""
    message = first_line(str(error))
    if isinstance(error, AttackFailedError) and message:
        return message
    return type(error).__name__ + (f": {message}" if message else "")


def model_summary(
    model: Any, input_shape: tuple[int, ...], classes: int
) -> dict[str, Any]:
    """Describe a model for the report."""
    inner, hardened = base_model(model), is_hardened(model)
    count = {}
    if isinstance(inner, keras.Model):
        count["parameters"] = int(inner.count_params())
    return {
        "name": model_name(inner),
        **count,
        "classes": classes,
        "input_shape": list(input_shape),
        "hardened": hardened,
        "settings": model.config.get_config() if hardened else None,
    }


def model_name(model: Any) -> str:
    """Return what a model is called."""
    for attribute in ("name", "__name__"):
        name = getattr(model, attribute, None)
        if isinstance(name, str) and name:
            return name
    return type(model).__name__


def versions() -> dict[str, str]:
    """Return the versions that a result may depend on."""
    package = __name__.partition(".")[0]
    return {
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "numpy": np.__version__,
        package: sys.modules[package].__version__,
    }


@dataclass(frozen=True, kw_only=True)
class Task:
    """A checked call of `evaluate_robustness`."""

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
    cache: ResultCache
    log: Log

    @property
    def settings(self) -> dict[str, Any]:
        """What attacks and diagnostics are made with."""
        return {
            "epsilon": self.epsilon,
            "norm": self.norm,
            "input_range": self.input_range,
            "batch_size": self.batch_size,
            "seed": self.seed,
        }


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
    """Return the accuracy of guessing: the largest class, or one of all classes."""
    return max(float(np.bincount(labels).max()) / len(labels), 1.0 / classes)
