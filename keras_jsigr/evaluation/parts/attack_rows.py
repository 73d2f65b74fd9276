"""Run an attack on some examples, piece by piece, and judge what it found."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_jsigr.attacks.calls.inside import inside
from keras_jsigr.attacks.calls.predictions import classified_rightly, predict_logits
from keras_jsigr.evaluation.log import in_words
from keras_jsigr.evaluation.parts.own_code import class_identity
from keras_jsigr.evaluation.store import Piece, array_digest
from keras_jsigr.evaluation.task import Task

# Batches per piece: a small part of the work, but enough to fill the last batches.
_BATCHES = 4


@dataclass
class Attacked:
    """What an attack did to some examples.

    Attributes:
        broken: Integers: the rows of those that the model gets wrong now.
        x_adv: Float `(len(broken), *S)`: where it gets them wrong.
        seconds: Wall time.
        error: What went wrong, in words, or `None`.
        crashed: Whether that ended the attack; the rest is what was done before.
    """

    broken: npt.NDArray[np.int64]
    x_adv: npt.NDArray[Any]
    seconds: float = 0.0
    error: str | None = None
    crashed: bool = False


def attack_rows(
    task: Task, kind: str, attack: Any, rows: npt.NDArray[np.int64]
) -> Attacked:
    """Attack some examples of a task.

    What the attack returns is judged anew: an example counts as broken if the model
    errs at a finite point inside the ball and the range. A crash ends the attack and
    is told in words.

    Args:
        task: The evaluation.
        kind: Which part of it asks.
        attack: With the radius to use.
        rows: Integers: the examples to attack.

    Returns:
        What it found.
    """
    found, seconds, outside, error = [], 0.0, 0, None
    size = _BATCHES * task.batch_size
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        try:
            piece = _piece(task, kind, attack, part)
        except Exception as crash:
            error = in_words(crash)
            break
        seconds += piece.info["seconds"]
        outside += piece.info["outside"]
        found.append((part[piece.arrays["broken"]], piece.arrays["x_adv"]))
        if len(rows) > size:
            done = start + len(part)
            task.log.say(f"    {attack.name}: {done} of {len(rows)} examples")
    crashed = error is not None
    if outside and not crashed:
        error = outside_words(outside)
    empty = (np.zeros(0, np.int64), task.x[:0])
    broken, x_adv = (np.concatenate(c) for c in zip(empty, *found, strict=True))
    return Attacked(broken, x_adv, seconds, error, crashed)


def _piece(task: Task, kind: str, attack: Any, rows: npt.NDArray[np.int64]) -> Piece:
    def make() -> Piece:
        start = time.perf_counter()
        x, y = task.x[rows], task.y[rows]
        x_adv = np.asarray(attack(task.model, x, y))
        x_adv = x_adv.astype(x.dtype)
        valid = inside(x_adv, x, attack.epsilon, task.norm, task.input_range)
        logits = predict_logits(task.model, x_adv, task.batch_size)
        broken = valid & ~classified_rightly(logits, y)
        seconds = time.perf_counter() - start
        arrays = {"broken": broken, "x_adv": x_adv[broken]}
        return Piece(arrays, {"seconds": seconds, "outside": int((~valid).sum())})

    settings = {
        "attack": describe(attack),
        "norm": task.norm,
        "input_range": task.input_range,
        "rows": array_digest(rows),
    }
    return task.store.piece(kind, settings, make)


def outside_words(count: int) -> str:
    """Say that points of an attack were not counted.

    Args:
        count: Their number.

    Returns:
        What a record says as its error.

    Example:
        >>> from keras_jsigr.evaluation.parts.attack_rows import outside_words
        >>> outside_words(3)[:34]
        '3 of its points were not finite, o'
    """
    return (
        f"{count} of its points were not finite, or outside of the ball or the range: "
        "they do not count"
    )


def describe(attack: Any) -> dict[str, Any]:
    """Return what tells apart two attacks: name, class, settings and own code.

    Args:
        attack: The attack.

    Returns:
        JSON values. What does not change the result (`verbose`) is left out. `code` is
        there for classes of other packages only, see `class_identity`.

    Example:
        >>> from keras_jsigr.attacks import PGD
        >>> from keras_jsigr.evaluation.parts.attack_rows import describe
        >>> describe(PGD(epsilon=0.1))["config"]["steps"]
        20
    """
    config = {k: v for k, v in attack.get_config().items() if k != "verbose"}
    return {"name": attack.name, "config": config, **class_identity(type(attack))}
