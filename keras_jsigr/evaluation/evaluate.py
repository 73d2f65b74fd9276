"""Evaluate a classifier under attack, in one call."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from keras_jsigr.evaluation.call import Call, check_call
from keras_jsigr.evaluation.parts.about import versions
from keras_jsigr.evaluation.parts.classes import by_class, chance
from keras_jsigr.evaluation.parts.curve import run_curve
from keras_jsigr.evaluation.parts.examples import show_examples
from keras_jsigr.evaluation.parts.findings import find_symptoms
from keras_jsigr.evaluation.parts.linear import linearize
from keras_jsigr.evaluation.parts.saliency import measure_saliency
from keras_jsigr.evaluation.parts.suite import no_attack, run_suite
from keras_jsigr.evaluation.parts.surrogates import (
    TransferResult,
    run_transfer,
    transfer_record,
)
from keras_jsigr.evaluation.rate import Rate
from keras_jsigr.evaluation.records import (
    CurvePoint,
    ExampleRecord,
    Finding,
    LinearizedRecord,
)
from keras_jsigr.evaluation.report import Report
from keras_jsigr.evaluation.saliency_records import SaliencyRecord


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
    """Run the parts of a checked call one after the other.

    Args:
        call: From `check_call`.

    Returns:
        The report.
    """
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
