"""A call of `evaluate`, checked: all that can be wrong is found before any attack."""

from __future__ import annotations

import inspect
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_jsigr.attacks.calls.inputs import check_inputs
from keras_jsigr.attacks.calls.predictions import PROGRAMS, classified_rightly
from keras_jsigr.attacks.gradient.apgd import APGD
from keras_jsigr.core import settings
from keras_jsigr.core.class_names import check_class_names
from keras_jsigr.evaluation.checks import (
    check_data,
    check_epsilon,
    check_radii,
    check_texts,
)
from keras_jsigr.evaluation.identity import data_identity, model_identity
from keras_jsigr.evaluation.interpretability.map_task import MapTask, check_map_task
from keras_jsigr.evaluation.interpretability.measure import check_maps
from keras_jsigr.evaluation.json_codec import to_json
from keras_jsigr.evaluation.known_range import known_range
from keras_jsigr.evaluation.log import Log
from keras_jsigr.evaluation.model_checks import check_logits, check_surrogates
from keras_jsigr.evaluation.named_attacks import attacks_of
from keras_jsigr.evaluation.parts.about import about_model, versions
from keras_jsigr.evaluation.parts.by_name import by_name
from keras_jsigr.evaluation.parts.curve import default_radii
from keras_jsigr.evaluation.parts.linear import RIVALS
from keras_jsigr.evaluation.store import Store
from keras_jsigr.evaluation.task import Task, widest_radius

_CURVE_STEPS = 50
_PROBES = 16


@dataclass(frozen=True, kw_only=True)
class Call:
    """Hold what `evaluate` has to do.

    Attributes:
        task: What all parts share.
        name: Of the model.
        about: What the report says of the model.
        title: Of the report.
        attacks: The suite.
        curve_attack: Behind the curve.
        radii: Of the curve, ascending.
        stop_at_chance: Whether the curve ends where guessing is as good.
        surrogates: Other models by name.
        transfer_attacks: To run against them.
        diagnostics: Whether to look for symptoms of gradient masking.
        examples: How many to show.
        saliency: What to measure of the saliency maps, or `None`.
        fingerprint: Of the data.
        settings: Of the call, for the report.
    """

    task: Task
    name: str
    about: dict[str, Any]
    title: str
    attacks: list[Any]
    curve_attack: Any
    radii: list[float]
    stop_at_chance: bool
    surrogates: dict[str, Any]
    transfer_attacks: list[Any]
    diagnostics: bool
    examples: int
    saliency: MapTask | None
    fingerprint: str
    settings: dict[str, Any]


def check_call(
    model: Any,
    x: Any,
    y: Any,
    *,
    epsilon: float,
    norm: str,
    attacks: Any,
    surrogates: Mapping[str, Any] | Sequence[Any] | None,
    epsilons: Sequence[float] | None,
    transfer_attacks: Any,
    input_range: tuple[float, float] | None,
    class_names: Sequence[str] | None,
    diagnostics: bool,
    saliency: bool | Mapping[str, Any],
    examples: int,
    batch_size: int,
    seed: int,
    title: str | None,
    resume: str | os.PathLike[str] | None,
    verbose: Any,
) -> Call:
    """Check the arguments of `evaluate` and prepare its work.

    Args: those of `evaluate`.

    Returns:
        The prepared call.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of range or does not fit the others.
    """
    settings.choice("verbose", verbose, ("auto", 0, 1))
    settings.choice("diagnostics", diagnostics, (False, True))
    examples = settings.count("examples", examples, minimum=0)
    batch_size = settings.count("batch_size", batch_size)
    seed = settings.count("seed", seed, minimum=0)
    check_texts(title=title, resume=resume)
    input_range = known_range(input_range, model)
    x = check_inputs(x, input_range)
    size = math.prod(x.shape[1:])
    threat: dict[str, Any] = {
        "epsilon": check_epsilon(epsilon, norm, input_range, size),
        "norm": norm,
        "input_range": input_range,
        "batch_size": batch_size,
        "seed": seed,
    }
    suite = attacks_of(attacks, **threat)
    if transfer_attacks is None:
        images = len(x.shape) == 4
        transfer_attacks = ["mi-fgsm", "di-fgsm"] if images else ["mi-fgsm"]
    transfer = attacks_of(
        transfer_attacks, transfer=True, argument="transfer_attacks", **threat
    )
    radii = (
        default_radii(threat["epsilon"], widest_radius(norm, input_range, size))
        if epsilons is None
        else check_radii("epsilons", epsilons)
    )

    probe = np.asarray(x[:_PROBES])
    # Settings of a model that are no weights may be others than in an earlier call.
    PROGRAMS.forget(model)
    classes = check_logits(model, probe, batch_size).shape[-1]
    x, labels = check_data(x, y, input_range, classes)
    others = check_surrogates(surrogates, model, x, classes)
    names = check_class_names(class_names, classes)
    logits = check_logits(model, x, batch_size)
    maps = _map_task(saliency, model, x, threat)
    fingerprint = data_identity(x, labels)
    task = Task(
        model=model,
        x=x,
        y=labels,
        logits=logits,
        right=classified_rightly(logits, labels),
        class_names=names,
        log=Log(verbose),
        store=_store(resume, model, x, fingerprint),
        **threat,
    )
    about = to_json(about_model(model, x.shape[1:], classes), "the model's settings")
    name = about["name"]
    return Call(
        task=task,
        name=name,
        about=about,
        title=name if title is None else str(title),
        attacks=suite,
        curve_attack=APGD(steps=_CURVE_STEPS, early_stop=True, verbose=0, **threat),
        radii=radii,
        stop_at_chance=epsilons is None,
        surrogates=others,
        transfer_attacks=transfer,
        diagnostics=diagnostics,
        examples=examples,
        saliency=maps,
        fingerprint=fingerprint,
        settings={
            "attacks": attacks if isinstance(attacks, str) else [a.name for a in suite],
            "surrogates": list(others),
            "transfer_attacks": list(by_name(transfer)) if others else [],
            "epsilons": radii,
            "linearized_rivals": RIVALS,
            "diagnostics": diagnostics,
            "saliency": None if maps is None else maps.get_config(),
            "examples": examples,
            "batch_size": batch_size,
            "seed": seed,
        },
    )


def _map_task(
    saliency: bool | Mapping[str, Any], model: Any, x: Any, threat: dict[str, Any]
) -> MapTask | None:
    if saliency is False:
        return None
    if saliency is not True and not isinstance(saliency, Mapping):
        raise TypeError(
            f"`saliency` is {saliency!r}, expected True, False or a dictionary of "
            "settings of `evaluate_saliency`. Pass for instance {'teacher': other}."
        )
    chosen = {} if saliency is True else dict(saliency)
    shared = sorted(set(chosen) & set(threat))
    if shared:
        raise ValueError(
            f"`saliency` has the settings {shared}, which the evaluation has already. "
            "Pass them to `evaluate` itself."
        )
    known = set(inspect.signature(check_map_task).parameters) - {"x", *threat}
    for name in chosen:
        settings.choice("saliency", name, tuple(sorted(known)))
    task = check_map_task(x, **threat, **chosen)
    check_maps(model, x, task)
    return task


def _store(resume: Any, model: Any, x: Any, fingerprint: str) -> Store:
    if resume is None:
        return Store(None, {})
    own = versions()
    identity = {
        "model": model_identity(model, x),
        "data": fingerprint,
        "dtype": x.dtype.name,
        "versions": {name: own[name] for name in ("keras_jsigr", "tensorflow")},
    }
    return Store(resume, identity)
