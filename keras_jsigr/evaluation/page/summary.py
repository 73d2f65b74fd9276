"""A report in a few plain sentences."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from keras_jsigr.evaluation.page.saliency import saliency_words
from keras_jsigr.evaluation.page.transfer import transfer_words
from keras_jsigr.evaluation.page.wording import (
    NORMS,
    between,
    listing,
    number,
    percent,
    radius,
)

if TYPE_CHECKING:
    from keras_jsigr.evaluation.report import Report


def summary(report: Report) -> str:
    """Say what was attacked how and what came of it, one sentence or two per line.

    Args:
        report: Of one evaluation.

    Returns:
        Plain text: attacks, accuracy without and under attack, transfer, diagnostics,
        and what went wrong.

    Example:
        See `Report.summary`.
    """
    return "\n".join(sentences(report))


def sentences(report: Report) -> list[str]:
    """Return the lines of `summary`.

    Args:
        report: Of one evaluation.

    Returns:
        The lines.

    Example:
        See `Report.summary`.
    """
    lines = [
        _attacked(report),
        f"Without attack, {percent(report.clean.accuracy)} are classified rightly "
        f"(95 % interval {between(report.clean)}).",
        _worst_case(report),
        transfer_words(report),
        _diagnostics(report),
        saliency_words(report),
        _errors(report),
    ]
    return [line for line in lines if line]


def _attacked(report: Report) -> str:
    model, examples = report.model, number(report.clean.total)
    facts = [
        f"{number(model['parameters'])} parameters" if "parameters" in model else "",
        f"{number(model['classes'])} classes" if "classes" in model else "",
        "hardened" if model.get("hardened") else "",
    ]
    known = ", ".join(fact for fact in facts if fact)
    name = f"{model.get('name') or 'The model'}{f' ({known})' if known else ''}"
    names = [attack.name for attack in report.attacks]
    if not names:
        return f"{name} was shown {examples} examples. No attack was run."
    threat = report.threat_model
    norm = NORMS.get(str(threat.get("norm")), str(threat.get("norm", "?")))
    reach = radius(threat.get("epsilon", math.nan), threat.get("input_range"))
    methods = "one attack" if len(names) == 1 else f"{len(names)} attacks"
    return (
        f"{name} was attacked on {examples} examples with {methods}, "
        f"{listing(names)}, which may change an input by at most {reach} in the "
        f"{norm} norm."
    )


def _worst_case(report: Report) -> str:
    rate, chance = report.robust, report.chance
    if not report.attacks:
        return ""
    text = (
        f"Against the strongest attack on each example, {percent(rate.accuracy)} "
        f"remain right (95 % interval {between(rate)}). Attacks that were "
        "not run may break more."
    )
    if rate.high < chance:
        return f"{text} Guessing would be right more often: {percent(chance)}."
    if rate.low <= chance:
        return f"{text} Guessing would do as well: {percent(chance)}."
    return f"{text} Guessing would give {percent(chance)}."


def _diagnostics(report: Report) -> str:
    if not report.findings:
        return "No diagnostics were run."
    suspect = [f.title for f in report.findings if f.status == "suspect"]
    skipped = sum(f.status == "skipped" for f in report.findings)
    checked = len(report.findings) - skipped
    rules = "1 rule" if checked == 1 else f"{checked} rules"
    left_out = f" ({skipped} could not be checked)" if skipped else ""
    if not checked:
        return f"The diagnostics could not be run ({skipped} skipped)."
    if not suspect:
        return f"Of {rules} of the diagnostics none found anything suspect{left_out}."
    return (
        f"Of {rules} of the diagnostics {len(suspect)} found something suspect"
        f"{left_out}: {'; '.join(suspect)}. Until that is explained, the model may be "
        "less robust than the figures say."
    )


def _errors(report: Report) -> str:
    failed = [attack.name for attack in report.attacks if attack.error]
    parts = []
    if failed:
        parts.append(f"Not without errors: {listing(failed)}.")
    if report.errors:
        parts.append(f"Not everything worked: {' '.join(report.errors)}")
    if not parts:
        return ""
    return " ".join([*parts, "The figures come from what did work."])
