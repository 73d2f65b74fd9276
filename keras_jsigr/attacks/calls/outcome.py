"""Run one attack of a suite and judge what it did."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from keras_jsigr.attacks.attack import Attack
from keras_jsigr.attacks.calls.inside import inside
from keras_jsigr.attacks.calls.predictions import classified_rightly


class Outcome(NamedTuple):
    """Tell what one attack of a suite did.

    Attributes:
        name: What the attack is called.
        attack: The attack.
        rows: Int64 `(A,)`: the examples it was given, those still classified rightly.
        x_adv: Float `(A, *S)`: what it returned; the inputs if it crashed.
        broken: Bool `(A,)`: the model errs there, and the point is in ball and range.
        seconds: Wall time, compiling included.
        error: What went wrong, in words, or `None`.
        crashed: Whether that ended the attack; else some points do not count.
    """

    name: str
    attack: Attack
    rows: npt.NDArray[np.int64]
    x_adv: npt.NDArray[Any]
    broken: npt.NDArray[np.bool_]
    seconds: float
    error: str | None
    crashed: bool = False


def attacked(
    attack: Attack,
    model: Any,
    logits_of: Callable[[npt.NDArray[Any]], npt.NDArray[Any]],
    x: npt.NDArray[Any],
    labels: npt.NDArray[np.int64],
    rows: npt.NDArray[np.int64],
    region: npt.NDArray[Any] | None = None,
) -> Outcome:
    """Attack some examples; what the attack returns is judged anew.

    Args:
        attack: The attack.
        model: What it attacks.
        logits_of: The logits of the model at points `(A, *S)`.
        x: Float `(N, *S)`.
        labels: Integers `(N,)`.
        rows: Int64 `(A,)`: the examples to attack; with none, the attack is not run.
        region: Where inputs may change, shape of `x`, or `None`.

    Returns:
        What it did. A crash is told in `error`.

    Example:
        >>> import numpy as np
        >>> from keras_jsigr.attacks import FGSM
        >>> from keras_jsigr.attacks.calls.outcome import attacked
        >>> model, attack = lambda x: x, FGSM(epsilon=0.25)
        >>> x, rows = np.array([[0.5, 0.75]], "float32"), np.array([0])
        >>> attacked(attack, model, model, x, np.array([1]), rows).broken
        array([ True])
    """
    start, error, crashed = time.perf_counter(), None, False
    some = x_adv = x[rows]
    broken = np.zeros(len(rows), bool)
    if len(rows):
        part = None if region is None else region[rows]
        try:
            x_adv = np.asarray(attack(model, some, labels[rows], region=part))
            valid = inside(x_adv, some, attack.epsilon, attack.norm, attack.input_range)
            broken = valid & ~classified_rightly(logits_of(x_adv), labels[rows])
            if not valid.all():
                error = (
                    f"{int((~valid).sum())} of {len(rows)} points were not finite, or "
                    "outside of the ball or the range: they do not count"
                )
        except Exception as crash:
            x_adv, error, crashed = some, f"{type(crash).__name__}: {crash}", True
    seconds = time.perf_counter() - start
    return Outcome(attack.name, attack, rows, x_adv, broken, seconds, error, crashed)
