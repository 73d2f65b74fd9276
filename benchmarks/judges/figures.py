"""What an attack reached, in numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
from networks.correct import correct

import keras_jsigr as kj

# Allowed overrun of radius and range: rounding of float32.
_SLACK = 1e-5


def still_correct(
    model: Any,
    x: np.ndarray,
    x_adv: np.ndarray,
    y: np.ndarray,
    epsilon: float,
    norm: str = "linf",
) -> np.ndarray:
    """Tell which images survive an attack within the ball, bool `(N,)`.

    A point outside of the ball or the range 0..1 does not count as a success, nor does
    an attack that turns a wrong decision into the right one as a defence.
    """
    inside = (lengths(x_adv - x, norm) <= epsilon + _SLACK) & _in_range(x_adv)
    fooled = ~correct(model, x_adv, y) & inside
    return correct(model, x, y) & ~fooled


def left_by_apgd(
    model: Any, x: np.ndarray, y: np.ndarray, epsilon: float
) -> np.ndarray:
    """Tell which images survive APGD-CE and APGD-T, Linf, bool `(N,)`."""
    common: dict[str, Any] = {"epsilon": epsilon, "early_stop": True, "verbose": 0}
    suite = kj.attacks.Suite([kj.attacks.APGD(**common), kj.attacks.APGDT(**common)])
    return still_correct(model, x, suite(model, x, y), y, epsilon)


def clean_and_apgd(
    model: Any, data: kj.datasets.Dataset, x: np.ndarray, y: np.ndarray, epsilon: float
) -> dict[str, float]:
    """Return the accuracy on all test images, and on x under APGD, in percent."""
    return {
        "clean": percent(correct(model, data.x_test, data.y_test)),
        "robust": percent(left_by_apgd(model, x, y, epsilon)),
    }


def percent(hits: np.ndarray) -> float:
    """Return the share of hits in percent, two digits."""
    return round(100 * float(np.mean(hits)), 2)


def spread(values: list[float], digits: int) -> str:
    """Say the mean and, of several, the lowest and the highest."""
    if not values:
        return "-"
    text = f"{np.mean(values):.{digits}f}"
    if len(values) > 1:
        text += f" ({min(values):.{digits}f} to {max(values):.{digits}f})"
    return text


def lengths(changes: np.ndarray, norm: str) -> np.ndarray:
    """Measure perturbations, float `(N,)`."""
    order = np.inf if norm == "linf" else 2
    return np.linalg.norm(changes.reshape(len(changes), -1), order, axis=-1)


def distances(
    model: Any, x: np.ndarray, x_adv: np.ndarray, y: np.ndarray, norm: str
) -> np.ndarray:
    """Measure how far the model was moved to be fooled, float `(N,)`.

    Zero where it errs at `x` already; infinite where it was not fooled within 0..1.
    """
    far = lengths(x_adv - x, norm)
    fooled = ~correct(model, x_adv, y) & _in_range(x_adv)
    return np.where(correct(model, x, y), np.where(fooled, far, np.inf), 0.0)


def _in_range(x: np.ndarray) -> np.ndarray:
    flat = x.reshape(len(x), -1)
    return (flat.min(-1) >= -_SLACK) & (flat.max(-1) <= 1 + _SLACK)
