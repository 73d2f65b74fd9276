"""Evaluate a classifier under attack, in one call."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypedDict, Unpack

import keras
import numpy as np

from keras_jsigr.attacks.apgd import APGD
from keras_jsigr.attacks.base import find_no_gradient, widest_radius
from keras_jsigr.attacks.suite import attacks_of, by_name
from keras_jsigr.core import arguments
from keras_jsigr.core.batching import PROGRAMS, classified_rightly, probe_rows
from keras_jsigr.core.files import to_json
from keras_jsigr.core.scores import check_class_names
from keras_jsigr.core.variables import unchanged
from keras_jsigr.evaluation import validation
from keras_jsigr.evaluation.examples import show_examples
from keras_jsigr.evaluation.gradient_masking import find_symptoms
from keras_jsigr.evaluation.records import CurvePoint, Rate
from keras_jsigr.evaluation.report import Report
from keras_jsigr.evaluation.resume import ResultCache, data_identity, model_identity
from keras_jsigr.evaluation.robustness import (
    RIVALS,
    default_radii,
    few_radii,
    linearize,
    no_attack,
    run_curve,
    run_suite,
    working_attack,
)
from keras_jsigr.evaluation.run import Log, Task, by_class, chance, model_summary, versions
from keras_jsigr.evaluation.saliency import check_nested_settings, measure_saliency
from keras_jsigr.evaluation.subject import CountedModel
from keras_jsigr.evaluation.transfer import TransferResult, run_transfer, transfer_record


class EvaluationOptions(TypedDict, total=False):
    """The rarer keywords of `evaluate_robustness`, which documents them."""

    epsilons: Sequence[float] | None
    transfer_attacks: Any
    class_names: Sequence[str] | None
    examples: int
    batch_size: int
    max_queries: int | None
    seed: int
    title: str | None


def evaluate_robustness(
    model: Any,
    x: Any,
    y: Any,
    epsilon: float | None = None,
    *,
    norm: str = "linf",
    input_range: tuple[float, float] | None = None,
    attacks: Any = "standard",
    surrogates: Mapping[str, Any] | Sequence[Any] | None = None,
    diagnostics: bool = True,
    saliency: bool | Mapping[str, Any] = False,
    resume: str | os.PathLike[str] | None = None,
    verbose: Literal["auto", 0, 1] = "auto",
    **options: Unpack[EvaluationOptions],
) -> Report:
    """Measure how often a classifier is right, without attack and under attack.

    The headline is the per-example worst case: an example counts as robust if no attack
    fools the model on it, and nothing that is transferred from the surrogates within
    the radius. The model and its variables are the same after the call. A crash of an
    attack or a part is told in `report.errors`; the rest goes on. A callable that
    TensorFlow cannot differentiate is a black box: what needs a gradient is left out,
    the curve is that of the first attack that works, and `report.queries` counts what
    it was asked. The same call gives the same report but for the times.

    Args:
        model: A Keras classifier of one input, a hardened model, or a callable that
            returns `(B, C)`.
        x: Float `(N, *S)` in `input_range`, array or tensor.
        y: True labels: class indices `(N,)`, or one-hot rows `(N, C)`.
        epsilon: Radius of the threat model in input units, > 0; `None`: that of the hardened model.
        norm: `"linf"`, `"l2"` or `"l1"`; also `np.inf`, `2`, `1`.
        input_range: `(low, high)` of valid inputs; `None`: that of the hardened model, or (0, 1).
        attacks: `"standard"` (AutoAttack), a suite, or a list of attacks and names.
        surrogates: Other models of the same classes, a list or by name, to make
            examples against; never the weights under evaluation.
        diagnostics: Whether to look for symptoms of gradient masking.
        saliency: Whether to measure the saliency maps too, about a minute more for 500
            images; or a dictionary of settings of `evaluate_saliency` to do it with.
        resume: A folder for finished pieces of work, with which an interrupted
            evaluation goes on; it serves any number of evaluations.
        verbose: 1 prints what is done, 0 nothing, `"auto"` only in long evaluations.
        **options: `epsilons`: radii of the curve (default: from a quarter of `epsilon` to
            `epsilon`, and on until guessing is as good); `transfer_attacks`: attacks and names, run
            at `epsilon` and twice that (default: MI-FGSM, and for images its combination with
            diverse inputs); `class_names`: one per class; `examples`: how many fooled examples to
            show, 12; `batch_size`, 128; `max_queries`: a callable may be asked about so many inputs
            per example in all, 50 or more; `seed` of everything random, 0; `title` of the report
            (default: the name of the model).

    Returns:
        The report: headline, attacks, classes, accuracy over the radius, transfer,
        linearized robustness, diagnostics, examples; `report.save("report.html")`.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of range or does not fit the others.

    Reference:
        arXiv 1902.06705 (how to evaluate), arXiv 2003.01690 (the standard suite).

    Example:
        >>> import numpy as np
        >>> import keras_jsigr as kj
        >>> x = np.array([[0.9, 0.1], [0.55, 0.45]], "float32")
        >>> quick = {"attacks": ["pgd"], "epsilons": [0.1], "diagnostics": False}
        >>> report = kj.evaluate_robustness(lambda x: x, x, [0, 0], 0.1, **quick)
        >>> report.clean.accuracy, report.robust.accuracy
        (1.0, 0.5)
    """
    arguments.choice("verbose", verbose, ("auto", 0, 1))
    arguments.choice("diagnostics", diagnostics, (False, True))
    validation.check_options("evaluate_robustness", EvaluationOptions, options)
    count = arguments.count("examples", options.get("examples", 12), minimum=0)
    batch_size = arguments.count("batch_size", options.get("batch_size", 128))
    seed = arguments.count("seed", options.get("seed", 0), minimum=0)
    if (limit := options.get("max_queries")) is not None:
        limit = arguments.count("max_queries", limit, minimum=50)
        if isinstance(model, keras.Model):
            raise ValueError(
                f"`max_queries={limit}` with a Keras model: expected a callable, which "
                "is asked about examples. Pass `lambda x: model(x)`, or no limit."
            )
    title = options.get("title")
    for key, text in (("title", title), ("resume", resume)):
        if text is not None and not isinstance(text, str | os.PathLike):
            raise TypeError(f"`{key}` is {text!r}, expected a string or None.")
    x, limits = validation.check_threat_model(x, epsilon, norm, input_range, model)
    epsilon, norm, input_range = limits.values()
    threat: dict[str, Any] = {**limits, "batch_size": batch_size, "seed": seed}
    suite = attacks_of(attacks, **threat)
    if (moved := options.get("transfer_attacks")) is None:
        moved = ["mi-fgsm", "di-fgsm"] if len(x.shape) == 4 else ["mi-fgsm"]
    transfer = attacks_of(moved, transfer=True, argument="transfer_attacks", **threat)
    widest = widest_radius(norm, input_range, math.prod(x.shape[1:]))
    radii = default_radii(epsilon, widest)
    if (chosen := options.get("epsilons")) is not None:
        radii = validation.check_radii("epsilons", chosen)
    curve_attack: Any = APGD(steps=50, early_stop=True, verbose=0, **threat)

    # Settings of a model that are no weights may be others than in an earlier call.
    PROGRAMS.forget(model)
    log, plain = Log(verbose), model
    with unchanged(plain, surrogates) as changed:
        open_model = isinstance(model, keras.Model) or not callable(model)
        counted = None if open_model else CountedModel(model)
        model = counted or model
        probe = np.asarray(probe_rows(x))
        classes = validation.check_logits(model, probe, batch_size).shape[-1]
        x, y = validation.check_data(x, y, input_range, classes)
        if counted is not None:
            model(probe_rows(x))  # as it is: elsewhere what layers assign is discarded
        no_gradient = find_no_gradient(model, x)
        if limit is not None and counted is not None:
            counted.limit = limit * len(x)
        elif no_gradient is None or not no_gradient.python:
            model, counted = plain, None  # an open model: nobody pays for questions
        others = validation.check_surrogates(surrogates, plain, x, classes)
        names = check_class_names(options.get("class_names"), classes)
        logits = validation.check_logits(model, x, batch_size)
        maps = check_nested_settings(saliency, model, x, threat)
        fingerprint, identity, own = data_identity(x, y), {}, versions()
        if resume is not None:
            identity = {
                "model": model_identity(model, x),
                "data": fingerprint,
                "dtype": x.dtype.name,
                "versions": {name: own[name] for name in ("keras_jsigr", "tensorflow")},
            }
        task = Task(
            model=model,
            x=x,
            y=y,
            logits=logits,
            right=classified_rightly(logits, y),
            class_names=names,
            log=log,
            cache=ResultCache(resume, identity),
            no_gradient=no_gradient,
            counted=counted,
            **threat,
        )
        about = to_json(model_summary(plain, x.shape[1:], classes), "its settings")
        if no_gradient is not None:
            about["no_gradient"] = no_gradient.reason
        about_curve: dict[str, Any] = {}
        results, transferred = no_attack(task), TransferResult()
        curve: list[CurvePoint] = []
        found: dict[str, Any] = {}  # by the field of the report
        guessing = chance(y, classes)
        with log.part("suite"):
            run_suite(task, suite, results)
        if no_gradient is not None:
            curve_attack = working_attack(suite, results)
            if chosen is None and no_gradient.python:
                radii = few_radii(task)
        if curve_attack is not None:
            config = curve_attack.get_config()
            about_curve = {"name": curve_attack.name, "config": config}
            known = results if no_gradient is not None else None
            stop_at = guessing if chosen is None else None
            with log.part("curve"):
                run_curve(task, curve_attack, radii, curve, stop_at, known)
        if others:
            with log.part("transfer"):
                reach = [epsilon, min(2.0 * epsilon, widest)]
                run_transfer(task, about["name"], others, transfer, reach, transferred)
        with log.part("linearized"):
            found["linearized"] = linearize(task)
        if diagnostics and not task.can_ask(9 * len(x) + 400):
            log.fail("diagnostics", "`max_queries` leaves too few questions for them")
        elif diagnostics:
            with log.part("diagnostics"):
                found["findings"] = find_symptoms(task, results, others)
        with log.part("examples"):
            found["examples"] = show_examples(task, results, count)
        if maps is not None:
            with log.part("saliency"):
                found["saliency"] = measure_saliency(task, maps)
        last = transfer_record(task, transferred, results)
    if changed:
        why = (
            f"being asked changes its variables ({', '.join(changed[:3])}"
            f"{', ...' if len(changed) > 3 else ''}), which were put back: it runs as "
            "in training. Call it with training=False."
        )
        log.fail("model", why)
    return Report(
        title=about["name"] if title is None else str(title),
        model=about,
        threat_model=limits,
        data={"images": len(x), "fingerprint": fingerprint},
        clean=Rate(int(task.right.sum()), len(x)),
        robust=Rate(int(results.robust.sum()), len(x)),
        attacks=results.records + ([] if last is None else [last]),
        classes=by_class(task, results.robust),
        curve=curve,
        curve_attack=about_curve if curve else {},
        chance=guessing,
        transfer=transferred.records,
        settings={
            "attacks": attacks if isinstance(attacks, str) else [a.name for a in suite],
            "surrogates": list(others),
            "transfer_attacks": list(by_name(transfer)) if others else [],
            "epsilons": radii,
            "linearized_rivals": RIVALS,
            "diagnostics": diagnostics,
            "saliency": None if maps is None else maps.get_config(),
            "examples": count,
            "max_queries": limit,
            "batch_size": batch_size,
            "seed": seed,
        },
        versions=own,
        seconds={**log.seconds, "total": log.total()},
        errors=log.errors,
        **found,
        queries=None if counted is None else counted.asked / len(x),
    )
