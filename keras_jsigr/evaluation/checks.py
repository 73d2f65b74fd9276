"""Refuse a call of `evaluate` that makes no sense, before any attack."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_jsigr.attacks.balls.ball import BALLS
from keras_jsigr.attacks.calls.inputs import check_inputs
from keras_jsigr.attacks.calls.labels import target_rows
from keras_jsigr.core import settings
from keras_jsigr.evaluation.model_checks import check_logits as check_logits
from keras_jsigr.evaluation.model_checks import check_surrogates as check_surrogates
from keras_jsigr.evaluation.task import widest_radius


def check_data(
    x: Any, y: Any, input_range: tuple[float, float], classes: int
) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
    """Check examples and labels and bring them to their plain forms.

    Args:
        x: Float array or tensor `(N, *S)` in the range.
        y: Class indices `(N,)` or `(N, 1)`, or one-hot rows `(N, C)`.
        input_range: `(low, high)`.
        classes: Number of classes.

    Returns:
        Examples as an array, labels as integers `(N,)`.

    Raises:
        TypeError: If `x` is no float array.
        ValueError: If values, shapes or lengths do not fit.

    Example:
        >>> import numpy as np
        >>> from keras_jsigr.evaluation.checks import check_data
        >>> check_data(np.zeros((1, 2), "float32"), [[0, 1]], (0.0, 1.0), 2)[1]
        array([1])
    """
    x = np.asarray(check_inputs(x, input_range))
    if y is None:
        raise ValueError(
            "`y` is None, expected the true label of each example. Accuracy cannot be "
            "measured without labels."
        )
    rows = np.asarray(target_rows(y, len(x), classes))
    return x, rows.argmax(-1).astype(np.int64)


def check_radii(name: str, radii: Any) -> list[float]:
    """Check radii and sort them.

    Args:
        name: What they are called in messages.
        radii: At least one positive number in input units.

    Returns:
        The radii, ascending, each once.

    Raises:
        TypeError: If they are no numbers.
        ValueError: If there is none, or one is not positive.

    Example:
        >>> from keras_jsigr.evaluation.checks import check_radii
        >>> check_radii("epsilons", [0.2, 0.1])
        [0.1, 0.2]
    """
    if isinstance(radii, str | int | float) or not len(radii):
        raise ValueError(
            f"`{name}` is {radii!r}, expected a list of at least one radius in input "
            "units. Pass for instance [0.1, 0.2]."
        )
    numbers = [
        settings.number(f"{name}[{i}]", radius, minimum=0.0, above=True)
        for i, radius in enumerate(radii)
    ]
    return sorted(set(numbers))


def check_epsilon(
    epsilon: Any, norm: Any, input_range: tuple[float, float], size: int
) -> float:
    """Check norm and radius of the threat model.

    Args:
        epsilon: A positive number in input units.
        norm: `"linf"`, `"l2"` or `"l1"`.
        input_range: `(low, high)`.
        size: Number of values of an example.

    Returns:
        The radius.

    Raises:
        TypeError: If it is no number.
        ValueError: If it is not positive, or so large that every input is in the ball;
            if the norm is unknown.

    Example:
        >>> from keras_jsigr.evaluation.checks import check_epsilon
        >>> check_epsilon(0.1, "linf", (0.0, 1.0), 784)
        0.1
    """
    settings.choice("norm", norm, tuple(BALLS))
    radius = settings.number("epsilon", epsilon, minimum=0.0, above=True)
    widest = widest_radius(norm, input_range, size)
    if radius >= widest:
        raise ValueError(
            f"`epsilon` is too large: got {radius:g} under {norm} for inputs in "
            f"{input_range}, expected less than {widest:g}, where every input may "
            "become any other. Give it in input units: 8/255 for inputs in 0..1."
        )
    return radius


def check_texts(**texts: Any) -> None:
    """Check arguments that are texts or paths.

    Args:
        **texts: A string, path or `None` by name.

    Raises:
        TypeError: If one is something else.

    Example:
        >>> from keras_jsigr.evaluation.checks import check_texts
        >>> check_texts(title=None, resume="folder")
    """
    for name, text in texts.items():
        if text is not None and not isinstance(text, str | os.PathLike):
            raise TypeError(
                f"`{name}` is {text!r}, expected a string or None. Convert it with "
                "str(...)."
            )
