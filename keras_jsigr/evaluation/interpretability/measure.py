"""All figures of the maps of one model."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_jsigr.core.logits import as_logits
from keras_jsigr.evaluation.interpretability.agreements import agreements
from keras_jsigr.evaluation.interpretability.faithfulness import faithfulness
from keras_jsigr.evaluation.interpretability.figures import unknown_values
from keras_jsigr.evaluation.interpretability.judgements import judgements
from keras_jsigr.evaluation.interpretability.map_task import MapTask, PartName
from keras_jsigr.evaluation.interpretability.own_properties import (
    alignments,
    localisation,
    smoothness,
    sparsity,
)
from keras_jsigr.evaluation.interpretability.sanity import sanity
from keras_jsigr.evaluation.interpretability.stability import (
    attacked_decision,
    attacked_map,
    gaussian_noise,
    stability,
    uniform_noise,
)
from keras_jsigr.evaluation.interpretability.subject import Subject
from keras_jsigr.evaluation.log import Log
from keras_jsigr.evaluation.saliency_records import SaliencyFigure, SaliencyRecord
from keras_jsigr.evaluation.store import array_digest
from keras_jsigr.saliency.explain import explainer
from keras_jsigr.saliency.methods.explainer import Explainer
from keras_jsigr.saliency.methods.method import SaliencyMethod

_PROBES = 16
_MEASUREMENTS: dict[PartName, Callable[[Subject], list[SaliencyFigure]]] = {
    "faithfulness": faithfulness,
    "agreement": agreements,
    "sparsity": sparsity,
    "alignment": alignments,
    "localisation": localisation,
    "smoothness": smoothness,
    "uniform_noise": partial(
        stability, condition="uniform noise", perturb=uniform_noise
    ),
    "gaussian_noise": partial(
        stability, condition="Gaussian noise", perturb=gaussian_noise
    ),
    "pgd": partial(stability, condition="PGD, class kept", perturb=attacked_decision),
    "saliency_attack": partial(
        stability, condition="saliency attack", perturb=attacked_map
    ),
    "sanity": sanity,
}


def measure(
    model: Any,
    x: npt.NDArray[Any],
    y: npt.NDArray[np.int64],
    task: MapTask,
    *,
    used: npt.NDArray[np.bool_],
    verbose: Any = 0,
) -> SaliencyRecord:
    """Measure the maps of one model, part by part; a crash loses its part alone.

    Args:
        model: A Keras classifier, a hardened model or a callable.
        x: Float `(N, *S)`.
        y: Integers `(N,)`, the classes explained.
        task: The settings.
        used: Bool `(N,)`: the examples to explain, those rightly classified.
        verbose: As of `Log`.

    Returns:
        The record.

    Raises:
        ValueError: If no example is used.
    """
    if not used.any():
        raise ValueError(
            "No example is classified rightly by every model: got none to explain, "
            "expected at least one. Train the models, or check the labels."
        )
    log = Log(verbose)
    x = x[used]
    subject = Subject(
        model=model,
        # Several rows: one row of logits may happen to look like probabilities.
        logits_fn=as_logits(model, x[:_PROBES]),
        explain=_explainer(model, x, task),
        x=x,
        y=y[used],
        boxes=None if task.boxes is None else task.boxes[used],
        task=task,
    )
    figures: list[SaliencyFigure] = []
    for name in task.parts:
        with log.part(name):
            figures += _MEASUREMENTS[name](subject)
    return SaliencyRecord(
        method=task.method_name,
        images=len(x),
        figures=figures,
        findings=judgements(figures),
        settings={
            **task.get_config(),
            "method": _plain(subject.explain.method),
            "examples": array_digest(used),
        },
        seconds={**log.seconds, "total": log.total()},
        errors=[*log.errors, *unknown_values(figures)],
    )


def check_maps(model: Any, x: npt.NDArray[Any], task: MapTask) -> None:
    """Make one map, so that what cannot be explained is refused before any work.

    Args:
        model: A Keras classifier, a hardened model or a callable.
        x: Float `(N, *S)`, at least one.
        task: The settings.

    Raises:
        TypeError: If a setting of the method has the wrong type.
        ValueError: If the method is unknown or does not fit the model.
    """
    maps = _explainer(model, x, task)(x[:1])
    if maps.ndim > 3 or maps.shape[1:] != x.shape[1 : maps.ndim]:
        raise ValueError(
            f"The method {task.method_name!r} gives maps of shape {maps.shape[1:]} for "
            f"examples of shape {x.shape[1:]}, expected one value per pixel. Leave "
            "`reduce` at True."
        )


def _explainer(model: Any, x: Any, task: MapTask) -> Explainer:
    return explainer(model, x[:1], method=task.method, batch_size=task.batch_size)


def _plain(method: SaliencyMethod) -> dict[str, Any]:
    """Return the settings of a method as JSON can hold them."""
    return {
        name: value if isinstance(value, str | int | float | None) else repr(value)
        for name, value in vars(method).items()
    }
