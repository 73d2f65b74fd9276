"""Evaluate a classifier under attack, in one call."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, TypedDict, Unpack

import keras
import numpy as np
import numpy.typing as npt

from keras_jsigr.attacks.apgd import APGD
from keras_jsigr.attacks.base import find_no_gradient
from keras_jsigr.attacks.norms import widest_radius
from keras_jsigr.attacks.suite import attacks_of, by_name
from keras_jsigr.core import arguments
from keras_jsigr.core.batching import PROGRAMS, classified_rightly, probe_rows
from keras_jsigr.core.files import to_json
from keras_jsigr.core.scores import check_class_names
from keras_jsigr.core.streams import Block, Blocks, is_stream
from keras_jsigr.core.variables import unchanged
from keras_jsigr.evaluation import validation
from keras_jsigr.evaluation.examples import show_examples, spread
from keras_jsigr.evaluation.gradient_masking import IMAGES, find_symptoms
from keras_jsigr.evaluation.records import (
    AttackRecord,
    CurvePoint,
    ExampleRecord,
    Finding,
    Rate,
    SaliencyRecord,
    TransferRecord,
)
from keras_jsigr.evaluation.report import Report
from keras_jsigr.evaluation.resume import (
    ResultCache,
    data_identity,
    join_identities,
    model_identity,
)
from keras_jsigr.evaluation.robustness import (
    RIVALS,
    Linearized,
    SuiteResult,
    default_radii,
    few_radii,
    linearize,
    no_attack,
    run_curve,
    run_suite,
    summarize_linearized,
    working_attack,
)
from keras_jsigr.evaluation.run import Log, Task, by_class, chance, model_summary, versions
from keras_jsigr.evaluation.saliency import (
    check_nested_settings,
    join_maps,
    measure_saliency,
    of_block,
)
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
    levels: int | None
    seed: int
    title: str | None


def evaluate_robustness(
    model: Any,
    x: Any,
    y: Any = None,
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

    Examples are worked on in blocks of 4,096 (fewer if they are large, but 512), in bounded memory;
    the diagnostics draw 500 examples from all of them. A dataset is read once.

    Args:
        model: A Keras classifier of one input, a hardened model, or a callable that
            returns `(B, C)`.
        x: Float `(N, *S)` in `input_range`, array or tensor; or a batched `tf.data.Dataset` or
            `keras.utils.PyDataset` of `(x, y)` or `(x, y, weight)`, whose weights do not count.
        y: True labels: class indices `(N,)`, or one-hot rows `(N, C)`; `None` with a dataset.
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
            per example in all, 50 or more; `levels`: attacks return inputs of so many values, 256
            for files of 8 bits, and are judged by these; `seed` of everything random, 0; `title`
            of the report (default: the name of the model).

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
    if streamed := is_stream(x):
        blocks = Blocks(x, y, model=model)
        x, y = blocks.head.x, blocks.head.y
    x, limits = validation.check_threat_model(x, epsilon, norm, input_range, model)
    epsilon, norm, input_range = limits.values()
    threat: dict[str, Any] = {**limits, "batch_size": batch_size, "seed": seed}
    levels = options.get("levels")
    suite = attacks_of(attacks, levels=levels, **threat)
    if (moved := options.get("transfer_attacks")) is None:
        moved = ["mi-fgsm", "di-fgsm"] if len(x.shape) == 4 else ["mi-fgsm"]
    transfer = attacks_of(
        moved, transfer=True, argument="transfer_attacks", levels=levels, **threat
    )
    widest = widest_radius(norm, input_range, math.prod(x.shape[1:]))
    radii = default_radii(epsilon, widest)
    if (chosen := options.get("epsilons")) is not None:
        radii = validation.check_radii("epsilons", chosen)
    curve_attack: Any = APGD(steps=50, early_stop=True, verbose=0, levels=levels, **threat)

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
        if counted is not None and limit is None and not (no_gradient and no_gradient.python):
            model, counted = plain, None  # an open model: nobody pays for questions
        others = validation.check_surrogates(surrogates, plain, x, classes)
        names = check_class_names(options.get("class_names"), classes)
        maps = check_nested_settings(saliency, model, x, threat, streamed=streamed)
        identity, own = {}, versions()
        if resume is not None:
            identity = {
                "model": model_identity(model, x),
                "dtype": x.dtype.name,
                "versions": {name: own[name] for name in ("keras_jsigr", "tensorflow")},
            }
        about = to_json(model_summary(plain, x.shape[1:], classes), "its settings")
        if no_gradient is not None:
            about["no_gradient"] = no_gradient.reason

        def task_of(block: Block) -> Task:
            """Check a block and look at it without attack."""
            x, y = validation.check_block(block, input_range, classes)
            if limit is not None and counted is not None:
                counted.limit = (counted.limit or 0) + limit * len(x)
            logits = validation.check_logits(model, x, batch_size)
            prints.append(data_identity(x, y))
            return Task(
                model=model,
                x=x,
                y=y,
                logits=logits,
                right=classified_rightly(logits, y),
                class_names=names,
                log=log,
                cache=ResultCache(resume, {**identity, "data": prints[-1]}),
                no_gradient=no_gradient,
                counted=counted,
                **threat,
            )

        plan = Plan(
            suite=suite,
            curve_attack=curve_attack,
            radii=radii,
            fixed=chosen is not None,
            surrogates=others,
            transfer=transfer,
            reach=[epsilon, min(2.0 * epsilon, widest)],
            name=about["name"],
        )
        found: list[BlockResult] = []
        prints: list[str] = []
        sample, measured, affordable = Sample(seed, count), list[SaliencyRecord](), True
        for block in blocks if streamed else Blocks(x, y):
            task = task_of(block)
            if block.first:
                log.say(f"from example {block.first:,} on")
            results = no_attack(task)
            found.append(evaluate_block(task, plan, results))
            sample.add(task, results, block.first)
            # The maps come before the diagnostics, but have no limit.
            affordable = task.can_ask(9 * (IMAGES if block.first else len(task.x)) + 400)
            # Without a right answer, a block has nothing to explain.
            if maps is not None and (task.right.any() or not block.first):
                with log.part("saliency"):
                    part = of_block(maps, block.first, len(task.x))
                    measured.append(measure_saliency(task, part))
        whole, linearized, about_curve = join_blocks(found), None, {}
        total = len(whole.y)
        if whole.curve:
            about_curve["name"] = plan.curve_attack.name
            about_curve["config"] = plan.curve_attack.get_config()
        with log.part("linearized"):
            linearized = summarize_linearized(task, whole.linearized)
        findings: list[Finding] = []
        fingerprint = join_identities(prints)
        task = replace(task, cache=ResultCache(resume, {**identity, "data": fingerprint}))
        if diagnostics and not affordable:
            log.fail("diagnostics", "`max_queries` leaves too few questions for them")
        elif diagnostics:
            with log.part("diagnostics"):
                for each in sample.diagnose(task, whole.suite, others):
                    given = {"examples_given": total} if "examples" in each.figures else {}
                    findings.append(replace(each, figures=each.figures | given))
        shown: list[ExampleRecord] = []
        with log.part("examples"):
            shown = sample.show(task, whole.suite)
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
        threat_model=limits if levels is None else {**limits, "levels": levels},
        data={"images": total, "fingerprint": fingerprint},
        clean=Rate(int(whole.right.sum()), total),
        robust=Rate(int(whole.robust.sum()), total),
        attacks=whole.suite + ([whole.transferred] if whole.transferred else []),
        classes=by_class(replace(task, y=whole.y, right=whole.right), whole.robust),
        curve=whole.curve,
        curve_attack=about_curve,
        chance=chance(whole.y, classes),
        transfer=whole.transfer,
        linearized=linearized,
        findings=findings,
        examples=shown,
        saliency=join_maps(measured) if measured else None,
        settings={
            "attacks": attacks if isinstance(attacks, str) else [a.name for a in suite],
            "surrogates": list(others),
            "transfer_attacks": list(by_name(transfer)) if others else [],
            "epsilons": plan.radii,
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
        queries=None if counted is None else counted.asked / total,
    )


@dataclass(kw_only=True)
class Plan:
    """What is done with every block; the first one decides about the curve."""

    suite: list[Any]
    curve_attack: Any
    radii: list[float]
    fixed: bool
    surrogates: Mapping[str, Any]
    transfer: list[Any]
    reach: list[float]
    name: str
    reached: list[float] | None = None


class BlockResult(NamedTuple):
    """What was found at the examples of a block, or of all blocks."""

    y: npt.NDArray[np.int64]
    right: npt.NDArray[np.bool_]
    robust: npt.NDArray[np.bool_]
    suite: list[AttackRecord]
    transferred: AttackRecord | None
    curve: list[CurvePoint]
    transfer: list[TransferRecord]
    linearized: Linearized | None


def evaluate_block(task: Task, plan: Plan, results: SuiteResult) -> BlockResult:
    """Run the parts that look at every example; `results` takes up what the suite finds."""
    log, transferred, values = task.log, TransferResult(), None
    curve: list[CurvePoint] = []
    with log.part("suite"):
        run_suite(task, plan.suite, results)
    first, known = plan.reached is None, None
    if task.no_gradient is not None:
        known = results
        if first:
            plan.curve_attack = working_attack(plan.suite, results)
        if first and task.no_gradient.python and not plan.fixed:
            plan.radii = few_radii(task)
    if plan.curve_attack is not None:
        stop_at = chance(task.y, len(task.class_names)) if first and not plan.fixed else None
        radii = plan.radii if plan.reached is None else plan.reached
        with log.part("curve"):
            run_curve(task, plan.curve_attack, radii, curve, stop_at, known)
    # All blocks have the radii that the first one reached.
    plan.reached = [point.epsilon for point in curve[1:]] if first else plan.reached
    if plan.surrogates:
        with log.part("transfer"):
            about = (plan.name, plan.surrogates, plan.transfer, plan.reach)
            run_transfer(task, *about, transferred)
    with log.part("linearized"):
        values = linearize(task)
    last = transfer_record(task, transferred, results)
    found = (task.y, task.right, results.robust, results.records, last)
    return BlockResult(*found, curve, transferred.records, values)


def join_blocks(blocks: Sequence[BlockResult]) -> BlockResult:
    """Add up what was found in the blocks; what one of them lacks is left out."""
    y, right, robust = (np.concatenate(c) for c in zip(*(b[:3] for b in blocks), strict=True))
    suite, curve = (
        [add_up(same) for same in zip(*parts, strict=False)]
        for parts in ([b.suite for b in blocks], [b.curve for b in blocks])
    )
    lasts = [b.transferred for b in blocks if b.transferred is not None]
    last = add_up(lasts) if len(lasts) == len(blocks) else None
    cells: dict[Any, list[TransferRecord]] = {}
    for r in (record for b in blocks for record in b.transfer):
        cells.setdefault((r.source, r.target, r.attack, r.epsilon, r.union), []).append(r)
    transfer = [add_up(same) for same in cells.values() if len(same) == len(blocks)]
    known = [b.linearized for b in blocks if b.linearized is not None]
    values = Linearized(*map(np.concatenate, zip(*known, strict=True))) if known else None
    return BlockResult(y, right, robust, suite, last, curve, transfer, values)


def add_up(records: Sequence[Any]) -> Any:
    """Return one record of several blocks: rates, counts and times are sums."""
    about = {name: [getattr(r, name) for r in records] for name in vars(records[0])}
    found = {k: sum(v) for k, v in about.items() if k in ("attacked", "broken", "seconds")}
    if "error" in about:
        found["error"] = "; ".join(dict.fromkeys(filter(None, about["error"]))) or None
    rates = about["accuracy"]
    if None not in rates:
        found["accuracy"] = Rate(sum(r.correct for r in rates), sum(r.total for r in rates))
    return replace(records[0], **{"accuracy": None, **found})


class Sample:
    """Examples for diagnostics and pictures: a single block, or some of all blocks."""

    def __init__(self, seed: int, shown: int) -> None:
        self._seed, self._shown = seed, shown
        self._columns: dict[str, npt.NDArray[Any]] = {}
        self._drawn: Any = slice(None)

    def add(self, task: Task, results: SuiteResult, first: int) -> None:
        """Add the examples of a block; of several blocks, keep only some."""
        new = {name: getattr(task, name) for name in _OF_TASK}
        new |= {"x_adv": results.x_adv, "fooled_by": results.fooled_by}
        new["place"] = first + np.arange(len(task.x))
        new["draw"] = np.random.default_rng((self._seed, first)).random(len(task.x))
        if self._columns:
            some = [self._reduced(columns) for columns in (self._columns, new)]
            new = self._reduced({k: np.concatenate([part[k] for part in some]) for k in new})
            self._drawn = np.sort(np.argsort(new["draw"])[:IMAGES])
        self._columns = new

    def _reduced(self, columns: dict[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        fooled = spread(np.flatnonzero(columns["fooled_by"] >= 0), columns["y"], self._shown)
        rows = np.union1d(np.argsort(columns["draw"])[:IMAGES], fooled)
        return {name: column[rows] for name, column in columns.items()}

    def diagnose(self, task: Task, records: list[AttackRecord], others: Any) -> list[Finding]:
        """Run the diagnostics on the examples drawn."""
        return find_symptoms(*self._part(task, records, self._drawn), others)

    def show(self, task: Task, records: list[AttackRecord]) -> list[ExampleRecord]:
        """Describe fooled examples by their places in the data."""
        found = show_examples(*self._part(task, records, slice(None)), self._shown)
        return [replace(e, index=int(self._columns["place"][e.index])) for e in found]

    def _part(self, task: Task, records: Any, rows: Any) -> tuple[Task, SuiteResult]:
        some = {name: column[rows] for name, column in self._columns.items()}
        part = replace(task, **{name: some[name] for name in _OF_TASK})
        robust = part.right & (some["fooled_by"] < 0)
        return part, SuiteResult(robust, some["x_adv"], some["fooled_by"], records)


_OF_TASK = ("x", "y", "logits", "right")
