"""Checks of the arguments of evaluations."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from keras_jsigr.attacks.base import check_inputs, check_model
from keras_jsigr.attacks.norms import widest_radius
from keras_jsigr.core import arguments
from keras_jsigr.core.batching import PROGRAMS, predict_logits, probe_rows
from keras_jsigr.core.inputs import finite_rows
from keras_jsigr.core.logits import base_model, known_epsilon, known_input_range
from keras_jsigr.core.scores import target_rows
from keras_jsigr.core.streams import Block
from keras_jsigr.evaluation.run import model_name


def check_threat_model(
    x: Any, epsilon: Any, norm: Any, input_range: Any, *models: Any
) -> tuple[Any, dict[str, Any]]:
    """Check inputs, radius, norm and range; hardened models fill in for `None`."""
    name = arguments.norm(norm)
    ends = known_range(input_range, *models)
    x = check_inputs(x, ends)
    if epsilon is None:
        epsilon = known_epsilon(*models) if name == "linf" else None
        if epsilon is None:
            raise ValueError(
                f"`epsilon` is None: expected a radius under {name} in input units, "
                "since no hardened model knows one. Pass for instance epsilon=8/255."
            )
    radius = arguments.number("epsilon", epsilon, minimum=0.0, above=True)
    widest = widest_radius(name, ends, math.prod(x.shape[1:]))
    if radius >= widest:
        raise ValueError(
            f"`epsilon` is too large: got {radius:g} under {name} for inputs in "
            f"{ends}, expected less than {widest:g}, where every input may "
            "become any other. Give it in input units: 8/255 for inputs in 0..1."
        )
    return x, {"epsilon": radius, "norm": name, "input_range": ends}


def known_range(given: Any, *models: Any) -> tuple[float, float]:
    """Return the range that is given, or that of the hardened models, or (0, 1)."""
    columns = isinstance(given, list | tuple) and any(np.ndim(end) for end in given)
    if columns or isinstance(given, str | Mapping):
        raise ValueError(
            f"`input_range` is {given!r}, expected one (low, high) for all inputs, as "
            "the ball of an attack has it. Evaluate a callable on scaled inputs, "
            "`lambda u: model(low + u * (high - low))`, or pass the widest range."
        )
    if given is not None:
        return arguments.interval("input_range", given)
    known = {ends for m in models if (ends := known_input_range(m)) is not None}
    if len(known) > 1:
        raise ValueError(
            f"Got no input_range and models hardened for {sorted(known)}, expected one "
            "range. Pass input_range, and models that take it."
        )
    low, high = known.pop() if known else (0.0, 1.0)
    return low, high


def check_models(models: Any) -> None:
    """Check that models are given by name."""
    named = isinstance(models, Mapping) and len(models) > 0
    if not named or not all(isinstance(name, str) and name for name in models):
        names = list(models) if isinstance(models, Mapping) else type(models).__name__
        raise TypeError(
            f"`models` is {names!r}, expected a dictionary of models by name, at least "
            "one. Pass {'plain': model, 'robust': other}."
        )


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


def check_options(function: str, known: Any, options: Mapping[str, Any]) -> None:
    """Refuse keywords that are not in a typed dictionary, as Python does."""
    for name in sorted(set(options) - set(known.__annotations__)):
        raise TypeError(
            f"{function}() got an unexpected keyword argument {name!r}, expected "
            f"one of {sorted(known.__annotations__)}. Check the spelling."
        )


def check_data(
    x: Any, y: Any, input_range: tuple[float, float], classes: int
) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
    """Check examples and labels; return arrays and class indices."""
    x = np.asarray(check_inputs(x, input_range))
    if y is None:
        raise ValueError(
            "`y` is None, expected the true label of each example. Pass `y`, or a dataset of "
            "(x, y)."
        )
    if np.asarray(y).dtype.kind in "OSU":
        raise TypeError(
            f"`y` holds names such as {str(np.asarray(y).flat[0])!r}, expected class "
            "indices. Pass their positions, [class_names.index(name) for name in y]."
        )
    rows = np.asarray(target_rows(y, len(x), classes))
    return x, rows.argmax(-1).astype(np.int64)


def check_block(block: Block, input_range: tuple[float, float], classes: int) -> tuple[Any, Any]:
    """Check a block of examples; errors, of datasets alone at this point, name them."""
    try:
        return check_data(block.x, block.y, input_range, classes)
    except (TypeError, ValueError) as error:
        places = f"{block.first} to {block.first + len(block.x) - 1}"
        raise type(error)(f"In the dataset's examples {places}: {error}") from error


def check_logits(model: Any, x: npt.NDArray[Any], batch_size: int) -> npt.NDArray[np.float32]:
    """Compute the logits of the model under evaluation and check them."""
    check_model(model)
    expected = getattr(model, "input_shape", None)
    shape = tuple(x.shape[1:])
    if isinstance(model, keras.Model) and isinstance(expected, tuple):
        wanted = expected[1:]
        pairs = zip(wanted, shape, strict=False)
        if len(wanted) != len(shape) or any(w not in (None, got) for w, got in pairs):
            raise ValueError(
                f"`x` does not fit the model: got examples of shape {shape}, expected "
                f"{tuple(wanted)}. "
                + ("Pass x[None]." if len(wanted) == x.ndim else "Reshape the data.")
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


def class_count(name: str, model: Any, x: Any, expected: int | None = None) -> int:
    """Try a model on the first of `x` and return its number of classes."""
    probe = np.asarray(probe_rows(x))
    try:
        found = int(check_logits(model, probe, len(probe)).shape[-1])
    except Exception as error:
        raise ValueError(
            f"The {name} cannot be used on `x`, examples of shape {probe.shape[1:]}: got "
            f"{type(error).__name__}: {error} Expected a model of the same inputs and classes."
        ) from error
    if found != (expected or found):
        raise ValueError(
            f"The {name} has {found} classes, expected {expected}. Pass models of the "
            "same classes in the same order."
        )
    return found


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
        names = [model_name(m) if isinstance(m, keras.Model) else "" for m in surrogates]
        if not all(names) or len(set(names)) < len(names):
            names = [f"surrogate {place}" for place in range(1, len(names) + 1)]
        surrogates = dict(zip(names, surrogates, strict=True))
    evaluated = {id(model), id(base_model(model))}
    for name, surrogate in surrogates.items():
        if not isinstance(name, str) or not name:
            raise TypeError(f"`surrogates` has the key {name!r}, expected a name.")
        if evaluated & {id(surrogate), id(base_model(surrogate))}:
            raise ValueError(
                f"Surrogate '{name}' is the evaluated model itself: expected a model "
                "of other weights. White-box rows are added without asking."
            )
        PROGRAMS.forget(surrogate)
        class_count(f"surrogate '{name}'", surrogate, x, classes)
    return dict(surrogates)
