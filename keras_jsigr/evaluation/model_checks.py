"""Refuse models that cannot be evaluated, or not together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from keras_jsigr.attacks.calls.inputs import check_model
from keras_jsigr.attacks.calls.predictions import PROGRAMS, predict_logits
from keras_jsigr.core.finite_rows import finite_rows
from keras_jsigr.core.unwrapped import unwrapped
from keras_jsigr.evaluation.parts.about import model_name

_PROBES = 16


def check_logits(
    model: Any, x: npt.NDArray[Any], batch_size: int
) -> npt.NDArray[np.float32]:
    """Compute the logits of the model under evaluation and check them.

    Args:
        model: A Keras classifier of one input, a hardened model or a callable.
        x: Float `(N, *S)`.
        batch_size: Examples per call of the model.

    Returns:
        Float32 `(N, C)`.

    Raises:
        TypeError: If it cannot be called.
        ValueError: If it has several inputs, its outputs are no class scores, or some
            are not finite.

    Example:
        >>> import numpy as np
        >>> from keras_jsigr.evaluation.model_checks import check_logits
        >>> check_logits(lambda x: x, np.ones((1, 2), "float32"), 128).tolist()
        [[1.0, 1.0]]
    """
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
    """Try a model and return its number of classes.

    Args:
        name: What it is called in messages.
        model: A Keras classifier or a callable.
        probe: Some examples, float `(n, *S)`.

    Returns:
        The number of its logits.

    Raises:
        ValueError: If it cannot be used on them.

    Example:
        >>> import numpy as np
        >>> from keras_jsigr.evaluation.model_checks import class_count
        >>> class_count("twin", lambda x: x, np.ones((1, 2), "float32"))
        2
    """
    try:
        return int(check_logits(model, probe, len(probe)).shape[-1])
    except Exception as error:
        raise ValueError(
            f"The {name} cannot be used on `x`, examples of shape {probe.shape[1:]}: "
            f"got {type(error).__name__}: {error} Expected a model of the same inputs "
            "and classes."
        ) from error


def check_model_fits(name: str, model: Any, x: npt.NDArray[Any], classes: int) -> None:
    """Check that another model takes the same inputs and knows the same classes.

    Args:
        name: What it is called in messages.
        model: A Keras classifier or a callable.
        x: Float `(N, *S)`.
        classes: Number of classes.

    Raises:
        ValueError: If it does not.

    Example:
        >>> import numpy as np
        >>> from keras_jsigr.evaluation.model_checks import check_model_fits
        >>> check_model_fits("twin", lambda x: x, np.ones((1, 2), "float32"), 2)
    """
    found = class_count(name, model, x[:_PROBES])
    if found != classes:
        raise ValueError(
            f"The {name} has {found} classes, expected {classes}. Pass models of the "
            "same classes in the same order."
        )


def check_surrogates(
    surrogates: Any, model: Any, x: npt.NDArray[Any], classes: int
) -> dict[str, Any]:
    """Check the models that transferred examples are made against, and name them.

    Args:
        surrogates: A dictionary of models by name, a list of models, or `None`.
        model: The model under evaluation.
        x: Float `(N, *S)`.
        classes: Number of classes.

    Returns:
        The models by name.

    Raises:
        TypeError: If it is something else.
        ValueError: If a model does not fit, or is the evaluated model itself.

    Example:
        >>> import numpy as np
        >>> from keras_jsigr.evaluation.model_checks import check_surrogates
        >>> x = np.ones((1, 2), "float32")
        >>> list(check_surrogates([lambda x: x], lambda x: 2 * x, x, 2))
        ['surrogate 1']
    """
    if surrogates is None:
        return {}
    if not isinstance(surrogates, Mapping):
        if not isinstance(surrogates, Sequence) or isinstance(surrogates, str):
            raise TypeError(
                f"`surrogates` is a {type(surrogates).__name__}, expected a list of "
                "models or a dictionary of models by name. Pass [model]."
            )
        surrogates = _named(surrogates)
    same = [model, unwrapped(model)]
    for name, surrogate in surrogates.items():
        if not isinstance(name, str) or not name:
            raise TypeError(f"`surrogates` has the key {name!r}, expected a name.")
        if any(
            each is one for each in (surrogate, unwrapped(surrogate)) for one in same
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
