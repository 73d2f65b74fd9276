"""Diagnostics of gradient masking: run the rules and collect their findings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from keras_jsigr.attacks.base import check_model
from keras_jsigr.attacks.norms import is_feasible
from keras_jsigr.core import arguments
from keras_jsigr.core.files import from_json, to_json
from keras_jsigr.core.variables import unchanged
from keras_jsigr.evaluation import validation
from keras_jsigr.evaluation.gradient_masking_context import DiagnosticContext, NotApplicableError
from keras_jsigr.evaluation.gradient_masking_rules import RULES, Rule, RuleResult
from keras_jsigr.evaluation.records import CRASHED, Finding, Status
from keras_jsigr.evaluation.resume import CachedResult, array_digest, model_identity
from keras_jsigr.evaluation.robustness import SuiteResult
from keras_jsigr.evaluation.run import Log, Task, in_words

# Enough to tell 6 % from the 2 % that are tolerated; more would only cost more.
IMAGES = 500


def diagnostics(  # noqa: D417
    model: Any,
    x: Any,
    y: Any,
    epsilon: float | None = None,
    *,
    norm: str = "linf",
    input_range: tuple[float, float] | None = None,
    surrogates: Any = None,
    batch_size: int = 128,
    seed: int = 0,
    verbose: Literal["auto", 0, 1] = "auto",
    results: Mapping[str, Any] | None = None,
) -> list[Finding]:
    """Look for signs that a model hides its gradients instead of being robust.

    Eleven rules, each a threshold and a test of counts: vanishing gradients, probabilities in place
    of logits, outputs that are random or depend on the batch; one step that beats many, black box
    that beats white box, more steps that find more, a larger radius that does not help; logits
    whose scale decides, gradients that turn within the radius or do not lead to the decisions,
    noise that beats gradients. "ok" is no proof of robustness, "suspect" means that the accuracy
    under the usual attacks may be an artefact, and a rule that crashes is "skipped" and says why.
    No more than 500 examples are used, drawn by the seed.

    Args:
        model, x, y, epsilon, norm, input_range, surrogates, batch_size, seed: See
            `evaluate_robustness`; some hundred examples that were not trained on.
        verbose: 1 prints a line per rule, 0 none, `"auto"` if it takes long.
        results: Points like `x` that white-box attacks found within the radius, by the
            name of the attack, `x` itself where they found none: they count beside PGD
            when black box is compared with white box.

    Returns:
        One finding per rule, always in the same order. The figures `examples` and
        `examples_given` say how many were used.

    Raises:
        TypeError, ValueError: As `evaluate_robustness`.

    Reference:
        arXiv 1802.00420, arXiv 1902.06705, arXiv 2003.01690.

    Example:
        >>> import numpy as np
        >>> from keras_jsigr.evaluation import diagnostics
        >>> x = np.random.default_rng(0).uniform(size=(50, 2)).astype("float32")
        >>> findings = diagnostics(lambda x: 1e6 * x, x, x.argmax(-1), epsilon=0.1, verbose=0)
        >>> [f.rule for f in findings if f.status == "suspect"]
        ['zero_gradients', 'logit_scale']
    """
    arguments.choice("verbose", verbose, ("auto", 0, 1))
    batch_size = arguments.count("batch_size", batch_size)
    seed = arguments.count("seed", seed, minimum=0)
    check_model(model)
    x, limits = validation.check_threat_model(x, epsilon, norm, input_range, model)
    x, input_range = np.asarray(x), limits["input_range"]
    order, log, findings = np.random.default_rng(seed), Log(verbose), []
    rows = np.sort(order.choice(len(x), min(len(x), IMAGES), replace=False))
    with unchanged(model, surrogates):
        classes = validation.check_logits(model, x[rows], batch_size).shape[-1]
        x, y = validation.check_data(x, y, input_range, classes)
        context = DiagnosticContext(
            model=model,
            x=x[rows],
            y=y[rows],
            classes=classes,
            surrogates=validation.check_surrogates(surrogates, model, x, classes),
            results=_check_results(results, x, rows, **limits),
            **limits,
            batch_size=batch_size,
            seed=seed,
        )
        for rule in RULES.values():
            findings.append(_run(rule, context, len(x)))
            log.say(f"{rule.title}: {findings[-1].status}. {findings[-1].says}")
    return findings


def _run(rule: Rule, context: DiagnosticContext, given: int) -> Finding:
    result = RuleResult(False, "", {})
    status: Status = "skipped"
    try:
        if rule.needs_gradient and context.no_gradient and context.no_gradient.python:
            raise NotApplicableError("There is no gradient to judge.")
        result = rule.check(context)
        status = "suspect" if result.suspect else "ok"
    except NotApplicableError as error:
        result = result._replace(says=str(error))
    except Exception as error:
        result = result._replace(says=CRASHED + in_words(error))
    figures = {**result.figures, "examples": len(context.x), "examples_given": given}
    return Finding(
        rule=rule.name,
        title=rule.title,
        status=status,
        says=result.says,
        figures={name: float(value) for name, value in figures.items()},
        advice=result.advice if result.suspect else "",
    )


def _check_results(
    results: Any, x: npt.NDArray[Any], rows: npt.NDArray[np.int64], **limits: Any
) -> dict[str, npt.NDArray[Any]]:
    if results is None:
        return {}
    if not isinstance(results, Mapping):
        raise TypeError(
            f"`results` is a {type(results).__name__}, expected a dictionary of points "
            "by the name of the attack. Pass {'APGD-CE': x_adv}."
        )
    chosen = {}
    for name, points in results.items():
        points = np.asarray(points, x.dtype)
        if points.shape != x.shape:
            raise ValueError(
                f"`results[{name!r}]` has shape {points.shape}, expected {x.shape}. "
                "Pass one point per example; the example itself where none was found."
            )
        points, there = points[rows], x[rows]
        outside = int((~is_feasible(points, there, **limits)).sum())
        if outside:
            raise ValueError(
                f"`results[{name!r}]` leaves the ball or the range: got {outside} points outside, "
                f"expected all within {limits['epsilon']:g}. Pass results of the same threat model."
            )
        chosen[str(name)] = points
    return chosen


def find_symptoms(task: Task, suite: SuiteResult, surrogates: Mapping[str, Any]) -> list[Finding]:
    """Run the diagnostics on what the suite found."""
    # That black-box attacks find more than white-box ones is one of the symptoms.
    white = [n for n, r in enumerate(suite.records) if r.access == "white box"]
    found = np.isin(suite.fooled_by, white)
    points = task.x.copy()
    points[found] = suite.x_adv[found]

    def compute() -> CachedResult:
        about = {"surrogates": dict(surrogates) or None, **task.threat}
        results = {"suite": points} if white else None
        data = (task.model, task.x, task.y)
        findings = diagnostics(*data, results=results, verbose=0, **about)
        crashed = any(finding.crashed for finding in findings)
        return CachedResult({}, {"findings": to_json(findings)}, complete=not crashed)

    settings = {
        **task.threat,
        "rules": list(RULES),
        "points": array_digest(points),
        "surrogates": [model_identity(m, task.x) for m in surrogates.values()],
    }
    info = task.cache.get_or_compute("diagnostics", settings, compute).info
    findings: list[Finding] = from_json(list[Finding], to_json(info["findings"]))
    for finding in findings:
        if finding.crashed:
            why = finding.says.removeprefix(CRASHED)
            task.log.fail(f"diagnostics, {finding.title}", why)
    return findings
