"""Refuse models that cannot be evaluated, or not together."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from keras_jsigr.attacks.base import check_inputs, check_model, target_rows
from keras_jsigr.attacks.norms import BALLS
from keras_jsigr.core import arguments
from keras_jsigr.core.batching import PROGRAMS, predict_logits
from keras_jsigr.core.inputs import finite_rows
from keras_jsigr.core.logits import base_model
from keras_jsigr.evaluation.run import model_name, widest_radius
from keras_jsigr.model import JSIGRModel

_PROBES = 16


def check_logits(
    model: Any, x: npt.NDArray[Any], batch_size: int
) -> npt.NDArray[np.float32]:
    """Compute the logits of the model under evaluation and check them."""
    check_model(model)
    expected = getattr(model, "input_shape", None)
    shape = tuple(x.shape[1:])
    if isinstance(model, keras.Model) and isinstance(expected, tuple):
        wanted = expected[1:]
        fits = len(wanted) == len(shape) and all(
            want in (None, got) for want, got in zip(wanted, shape, strict=True)
        )
        if not fits:
            raise ValueError(
                f"`x` does not fit the model: got examples of shape {shape}, expected "
                f"{tuple(wanted)}. Reshape the data."
            )
    logits: npt.NDArray[np.float32] = predict_logits(model, x, batch_size)
    bad = int((~finite_rows(logits)).sum())
    if bad:
        raise ValueError(
            f"The model's outputs are NaN or infinite at {bad} of {len(x)} examples, "
            "expected finite class scores. Look for a division, log or sqrt at zero, "
            "and rule classes out by -1e9 instead of minus infinity."
        )
    return logits


def class_count(name: str, model: Any, probe: npt.NDArray[Any]) -> int:
    """Try a model and return its number of classes."""
    try:
        return int(check_logits(model, probe, len(probe)).shape[-1])
    except Exception as error:
        raise ValueError(
            f"The {name} cannot be used on `x`, examples of shape {probe.shape[1:]}: "
            f"got {type(error).__name__}: {error} Expected a model of the same inputs "
            "and classes."
        ) from error


def check_model_fits(name: str, model: Any, x: npt.NDArray[Any], classes: int) -> None:
    """Check that another model takes the same inputs and knows the same classes."""
    found = class_count(name, model, x[:_PROBES])
    if found != classes:
        raise ValueError(
            f"The {name} has {found} classes, expected {classes}. Pass models of the "
            "same classes in the same order."
        )


def check_surrogates(
    surrogates: Any, model: Any, x: npt.NDArray[Any], classes: int
) -> dict[str, Any]:
    """Check the models that transferred examples are made against, and name them."""
    if surrogates is None:
        return {}
    if not isinstance(surrogates, Mapping):
        if not isinstance(surrogates, Sequence) or isinstance(surrogates, str):
            raise TypeError(
                f"`surrogates` is a {type(surrogates).__name__}, expected a list of "
                "models or a dictionary of models by name. Pass [model]."
            )
        surrogates = _named(surrogates)
    same = [model, base_model(model)]
    for name, surrogate in surrogates.items():
        if not isinstance(name, str) or not name:
            raise TypeError(f"`surrogates` has the key {name!r}, expected a name.")
        if any(
            each is one for each in (surrogate, base_model(surrogate)) for one in same
        ):
            raise ValueError(
                f"Surrogate '{name}' is the evaluated model itself: expected a model "
                "of other weights. White-box rows are added without asking."
            )
        PROGRAMS.forget(surrogate)
        check_model_fits(f"surrogate '{name}'", surrogate, x, classes)
    return dict(surrogates)


def _named(models: Sequence[Any]) -> dict[str, Any]:
    names = [model_name(m) if isinstance(m, keras.Model) else "" for m in models]
    unique = all(names) and len(set(names)) == len(names)
    if not unique:
        names = [f"surrogate {number}" for number in range(1, len(models) + 1)]
    return dict(zip(names, models, strict=True))


def check_data(
    x: Any, y: Any, input_range: tuple[float, float], classes: int
) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
    """Check examples and labels and bring them to their plain forms."""
    x = np.asarray(check_inputs(x, input_range))
    if y is None:
        raise ValueError(
            "`y` is None, expected the true label of each example. Accuracy cannot be "
            "measured without labels."
        )
    rows = np.asarray(target_rows(y, len(x), classes))
    return x, rows.argmax(-1).astype(np.int64)


def check_radii(name: str, radii: Any) -> list[float]:
    """Check radii and sort them."""
    if isinstance(radii, str | int | float) or not len(radii):
        raise ValueError(
            f"`{name}` is {radii!r}, expected a list of at least one radius in input "
            "units. Pass for instance [0.1, 0.2]."
        )
    numbers = [
        arguments.number(f"{name}[{i}]", radius, minimum=0.0, above=True)
        for i, radius in enumerate(radii)
    ]
    return sorted(set(numbers))


def check_epsilon(
    epsilon: Any, norm: Any, input_range: tuple[float, float], size: int
) -> float:
    """Check norm and radius of the threat model."""
    arguments.choice("norm", norm, tuple(BALLS))
    radius = arguments.number("epsilon", epsilon, minimum=0.0, above=True)
    widest = widest_radius(norm, input_range, size)
    if radius >= widest:
        raise ValueError(
            f"`epsilon` is too large: got {radius:g} under {norm} for inputs in "
            f"{input_range}, expected less than {widest:g}, where every input may "
            "become any other. Give it in input units: 8/255 for inputs in 0..1."
        )
    return radius


def check_texts(**texts: Any) -> None:
    """Check arguments that are texts or paths."""
    for name, text in texts.items():
        if text is not None and not isinstance(text, str | os.PathLike):
            raise TypeError(
                f"`{name}` is {text!r}, expected a string or None. Convert it with "
                "str(...)."
            )


def known_range(given: tuple[float, float] | None, *models: Any) -> tuple[float, float]:
    """Return the range that is given, or that of the hardened models, or (0, 1)."""
    if given is not None:
        return arguments.interval("input_range", given)
    known = {m.settings.input_range for m in models if isinstance(m, JSIGRModel)}
    if len(known) > 1:
        raise ValueError(
            f"Got no input_range and models hardened for {sorted(known)}, expected one "
            "range. Pass input_range, and models that take it."
        )
    return known.pop() if known else (0.0, 1.0)
