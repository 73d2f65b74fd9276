"""What the parts of an evaluation share: the checked call, its log, model summaries."""

from __future__ import annotations

import functools
import platform
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from keras_jsigr.attacks.base import NoGradient
from keras_jsigr.core.arguments import tell
from keras_jsigr.core.logits import base_model, innermost_line, is_hardened
from keras_jsigr.evaluation.records import ClassRecord, Rate
from keras_jsigr.evaluation.resume import ResultCache
from keras_jsigr.evaluation.subject import CountedModel

# With verbose="auto", progress is told after so many seconds.
_LONG = 20.0


class Log:
    """Time the parts of an evaluation; note their errors instead of raising them."""

    def __init__(self, verbose: Any) -> None:
        self.seconds: dict[str, float] = {}
        self._failed: dict[str, list[str]] = {}
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
            self.fail(name, in_words(error))
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

    def fail(self, what: str, why: str) -> None:
        """Note that something failed; what failed for one reason is told together."""
        self._failed.setdefault(why, []).append(what)
        self.say(f"{what}: {why}")

    @property
    def errors(self) -> list[str]:
        """What failed and why, each reason once."""
        known = self._failed.items()
        return [f"{'; '.join(dict.fromkeys(what))}: {why}" for why, what in known]

    def say(self, line: str) -> None:
        """Print a line by the rule for `verbose`; with "auto" only if it takes long."""
        if self._verbose != "auto" or self.total() > _LONG:
            tell(line, self._verbose)

    def total(self) -> float:
        """Return the seconds since the beginning."""
        return time.perf_counter() - self._start


class AttackFailedError(RuntimeError):
    """An attack crashed; the message is that of its error, with the error's name."""


def in_words(error: BaseException) -> str:
    """Say what an error is in one line."""
    kind = "" if isinstance(error, AttackFailedError) else f"{type(error).__name__}: "
    return innermost_line(f"{kind}{error}") or type(error).__name__


def model_summary(model: Any, input_shape: tuple[int, ...], classes: int) -> dict[str, Any]:
    """Describe a model for the report."""
    inner, hardened = base_model(model), is_hardened(model)
    about = {
        "name": model_name(inner),
        "classes": classes,
        "input_shape": list(input_shape),
        "hardened": hardened,
        "settings": model.config.get_config() if hardened else None,
    }
    known = isinstance(inner, keras.Model)
    return about | ({"parameters": int(inner.count_params())} if known else {})


def model_name(model: Any) -> str:
    """Return what a model is called."""
    if isinstance(model, functools.partial):
        return model_name(model.func)
    for attribute in ("name", "__name__"):
        name = getattr(model, attribute, None)
        if isinstance(name, str) and name:
            return "unnamed function" if name == "<lambda>" else name
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
class Threat:
    """What attacks are made with, checked."""

    epsilon: float
    norm: str
    input_range: tuple[float, float]
    batch_size: int = 128
    seed: int = 0

    @property
    def threat(self) -> dict[str, Any]:
        """The same by name."""
        return {each.name: getattr(self, each.name) for each in fields(Threat)}


@dataclass(frozen=True, kw_only=True)
class Task(Threat):
    """A checked call of `evaluate_robustness`."""

    model: Any
    x: npt.NDArray[Any]
    y: npt.NDArray[np.int64]
    logits: npt.NDArray[np.float32]
    right: npt.NDArray[np.bool_]
    class_names: tuple[str, ...]
    cache: ResultCache
    log: Log
    no_gradient: NoGradient | None = None
    counted: CountedModel | None = None

    def can_ask(self, questions: float) -> bool:
        """Tell whether the model may be asked so many questions more."""
        return self.counted is None or self.counted.can_answer(questions)


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
