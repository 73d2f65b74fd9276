"""Evaluate a classifier under attack, in one call."""

from __future__ import annotations

import inspect
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from keras_jsigr.attacks.apgd import APGD
from keras_jsigr.attacks.base import check_inputs
from keras_jsigr.attacks.suite import attacks_of, by_name
from keras_jsigr.core import arguments
from keras_jsigr.core.batching import PROGRAMS, classified_rightly
from keras_jsigr.core.files import to_json
from keras_jsigr.core.scores import check_class_names
from keras_jsigr.evaluation.examples import show_examples
from keras_jsigr.evaluation.gradient_masking import find_symptoms
from keras_jsigr.evaluation.records import (
    CurvePoint,
    ExampleRecord,
    Finding,
    LinearizedRecord,
    Rate,
    SaliencyRecord,
)
from keras_jsigr.evaluation.report import Report
from keras_jsigr.evaluation.resume import Store, data_identity, model_identity
from keras_jsigr.evaluation.robustness import (
    RIVALS,
    default_radii,
    linearize,
    no_attack,
    run_curve,
    run_suite,
)
from keras_jsigr.evaluation.run import (
    Log,
    Task,
    about_model,
    by_class,
    chance,
    versions,
    widest_radius,
)
from keras_jsigr.evaluation.saliency import check_maps, measure_saliency
from keras_jsigr.evaluation.saliency_measures import MapTask, check_map_task
from keras_jsigr.evaluation.transfer import (
    TransferResult,
    run_transfer,
    transfer_record,
)
from keras_jsigr.evaluation.validation import (
    check_data,
    check_epsilon,
    check_logits,
    check_radii,
    check_surrogates,
    check_texts,
    known_range,
)

_CURVE_STEPS = 50


_PROBES = 16


@dataclass(frozen=True, kw_only=True)
class Call:
    """Hold what `evaluate` has to do."""

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
    """Check the arguments of `evaluate` and prepare its work."""
    arguments.choice("verbose", verbose, ("auto", 0, 1))
    arguments.choice("diagnostics", diagnostics, (False, True))
    examples = arguments.count("examples", examples, minimum=0)
    batch_size = arguments.count("batch_size", batch_size)
    seed = arguments.count("seed", seed, minimum=0)
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
        arguments.choice("saliency", name, tuple(sorted(known)))
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


def evaluate(
    model: Any,
    x: Any,
    y: Any,
    *,
    epsilon: float,
    norm: str = "linf",
    attacks: Any = "standard",
    surrogates: Mapping[str, Any] | Sequence[Any] | None = None,
    epsilons: Sequence[float] | None = None,
    transfer_attacks: Any = None,
    input_range: tuple[float, float] | None = None,
    class_names: Sequence[str] | None = None,
    diagnostics: bool = True,
    saliency: bool | Mapping[str, Any] = False,
    examples: int = 12,
    batch_size: int = 128,
    seed: int = 0,
    title: str | None = None,
    resume: str | os.PathLike[str] | None = None,
    verbose: Literal["auto", 0, 1] = "auto",
) -> Report:
    """Measure how often a classifier is right, without attack and under attack.

    The headline is the per-example worst case: an example counts as robust if no attack
    fools the model on it, and nothing that is transferred from the surrogates within
    the radius. Beside it: each attack, each class, accuracy over the radius, transfer
    from other models next to the same attack with full access, the linearized
    robustness, diagnostics of gradient masking, and some fooled examples.

    A crash of an attack or a part is told in `report.errors`; the rest goes on. With
    `resume`, an interrupted evaluation goes on where it was; the same call gives the
    same report but for the times.

    Args:
        model: A Keras classifier of one input, a hardened model, or a callable that
            returns `(B, C)`.
        x: Float `(N, *S)` in `input_range`, array or tensor.
        y: True labels: class indices `(N,)`, or one-hot rows `(N, C)`.
        epsilon: Radius of the threat model in input units, > 0.
        norm: `"linf"`, `"l2"` or `"l1"`.
        attacks: `"standard"`, a suite, or a list of attacks and names of attacks.
        surrogates: Other models of the same classes, a list or by name, to make
            examples against; never the weights under evaluation.
        epsilons: Radii of the curve; `None`: from a quarter of `epsilon` to `epsilon`,
            and on until guessing is as good.
        transfer_attacks: A list of attacks and names, run at `epsilon` and twice that;
            `None`: MI-FGSM, and for images its combination with diverse inputs.
        input_range: `(low, high)` of valid inputs; `None`: that of the hardened model,
            or (0, 1).
        class_names: One per class; `None`: their numbers.
        diagnostics: Whether to look for symptoms of gradient masking.
        saliency: Whether to measure the saliency maps too, about a minute more for 500
            images; or a dictionary of settings of `evaluate_saliency` to do it with.
        examples: How many fooled examples to show.
        batch_size: Examples worked on at once.
        seed: Of everything random.
        title: Of the report; `None`: the name of the model.
        resume: A folder for finished pieces of work, see `Store`; one folder serves any
            number of evaluations.
        verbose: 1 prints what is done, 0 nothing, `"auto"` only in long evaluations.

    Returns:
        The report; `report.save("report.html")` makes a page of it.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of range or does not fit the others.

    Reference:
        arXiv 1902.06705 (how to evaluate), arXiv 2003.01690 (the standard suite).

    Example:
        >>> import numpy as np
        >>> from keras_jsigr.evaluation.evaluate import evaluate
        >>> x = np.array([[0.9, 0.1], [0.55, 0.45]], "float32")
        >>> report = evaluate(
        ...     lambda x: x,
        ...     x,
        ...     [0, 0],
        ...     epsilon=0.1,
        ...     attacks=["pgd"],
        ...     epsilons=[0.1],
        ...     diagnostics=False,
        ... )
        >>> report.clean.accuracy, report.robust.accuracy
        (1.0, 0.5)
    """
    call = check_call(
        model,
        x,
        y,
        epsilon=epsilon,
        norm=norm,
        attacks=attacks,
        surrogates=surrogates,
        epsilons=epsilons,
        transfer_attacks=transfer_attacks,
        input_range=input_range,
        class_names=class_names,
        diagnostics=diagnostics,
        saliency=saliency,
        examples=examples,
        batch_size=batch_size,
        seed=seed,
        title=title,
        resume=resume,
        verbose=verbose,
    )
    return run_call(call)


def run_call(call: Call) -> Report:
    """Run the parts of a checked call one after the other."""
    task, log = call.task, call.task.log
    suite, transfer = no_attack(task), TransferResult()
    curve: list[CurvePoint] = []
    linearized: LinearizedRecord | None = None
    findings: list[Finding] = []
    examples: list[ExampleRecord] = []
    saliency: SaliencyRecord | None = None
    guessing = chance(task.y, task.logits.shape[-1])

    with log.part("suite"):
        run_suite(task, call.attacks, suite)
    with log.part("curve"):
        stop_at = guessing if call.stop_at_chance else None
        run_curve(task, call.curve_attack, call.radii, stop_at=stop_at, points=curve)
    if call.surrogates:
        with log.part("transfer"):
            run_transfer(
                task,
                call.name,
                call.surrogates,
                call.transfer_attacks,
                [task.epsilon, 2.0 * task.epsilon],
                transfer,
            )
    with log.part("linearized"):
        linearized = linearize(task)
    if call.diagnostics:
        with log.part("diagnostics"):
            findings = find_symptoms(task, suite, call.surrogates)
    with log.part("examples"):
        examples = show_examples(task, suite, call.examples)
    if call.saliency is not None:
        with log.part("saliency"):
            saliency = measure_saliency(task, call.saliency)

    transferred = transfer_record(task, transfer, suite)
    if transferred is not None:
        suite.records.append(transferred)
    images = len(task.x)
    return Report(
        title=call.title,
        model=call.about,
        threat_model={
            "norm": task.norm,
            "epsilon": task.epsilon,
            "input_range": task.input_range,
        },
        data={"images": images, "fingerprint": call.fingerprint},
        clean=Rate(int(task.right.sum()), images),
        robust=Rate(int(suite.robust.sum()), images),
        attacks=suite.records,
        classes=by_class(task, suite.robust),
        curve=curve,
        curve_attack={
            "name": call.curve_attack.name,
            "config": call.curve_attack.get_config(),
        },
        chance=guessing,
        transfer=transfer.records,
        linearized=linearized,
        findings=findings,
        examples=examples,
        settings=call.settings,
        versions=versions(),
        seconds={**log.seconds, "total": log.total()},
        errors=log.errors,
        saliency=saliency,
    )
