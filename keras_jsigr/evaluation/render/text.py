"""A report as text: the sentences of its summary, and Markdown."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from keras_jsigr.evaluation.records import Finding, Rate, ReportData
from keras_jsigr.evaluation.render.tables import (
    NORMS,
    Matrix,
    between,
    compared,
    decided,
    duration,
    examples,
    key_figures,
    labels,
    listing,
    mean,
    number,
    percent,
    plain,
    radius,
    report_matrices,
    saliency_rows,
    saliency_words,
    spread,
    transfer_words,
)


class TextTable(NamedTuple):
    """One table; every row is as long as the header."""

    heading: str
    header: list[str]
    rows: list[list[str]]


_FINDING = ["Status", "Rule", "Finding", "Figures", "What to do"]


def report_tables(report: ReportData) -> list[TextTable]:
    """Write everything but summary, key figures and transfer as tables."""
    rates = ["Without attack", "Under attack"]
    columns = ["Example", "Class", *rates, "Attack", "Distance"]
    name = report.curve_attack.get("name")
    curve = f"Accuracy by radius ({name})" if name else "Accuracy by radius"
    points = [[number(p.epsilon), rate(p.accuracy)] for p in report.curve]
    classes = [[c.name, rate(c.clean), rate(c.robust)] for c in report.classes]
    fooled = [
        [f"{e.index}", e.label, e.predicted, e.adversarial, e.attack, number(e.distance)]
        for e in report.examples
    ]
    about_maps = []
    if report.saliency:
        about_maps += [_finding(f) for f in report.saliency.findings]
        about_maps += [["error", text, "", "", ""] for text in report.saliency.errors]
    tables = [
        TextTable("What went wrong", ["Part"], [[text] for text in report.errors]),
        TextTable(curve, ["ε", "Accuracy"], points),
        _attacks(report),
        TextTable("Diagnostics", _FINDING, [_finding(f) for f in report.findings]),
        _linearized(report),
        TextTable("Classes", ["Class", *rates], classes),
        TextTable("Examples", columns, fooled),
        _saliency(report),
        TextTable("What the figures of the maps say", _FINDING, about_maps),
        _settings(report),
    ]
    return [table for table in tables if table.rows]


def _finding(finding: Finding) -> list[str]:
    figures = ", ".join(f"{k} {number(v)}" for k, v in finding.figures.items())
    return [finding.status, finding.title, finding.says, figures, finding.advice]


def rate(value: Rate | None) -> str:
    """Write a share with its interval."""
    return f"{percent(value.accuracy)} ({between(value)})" if value else "not measured"


def _attacks(report: ReportData) -> TextTable:
    header = ["Attack", "Access", "Attacked", "Broken", "Accuracy after", "Time"]
    rows = []
    for a in report.attacks:
        counts = [number(a.attacked), number(a.broken), rate(a.accuracy)]
        more = [duration(a.seconds), plain(a.config), a.error or ""]
        rows.append([a.name, a.access, *counts, *more])
    return TextTable("Attacks", [*header, "Settings", "Error"], rows)


def _linearized(report: ReportData) -> TextTable:
    found, header = report.linearized, ["Figure", "Value"]
    if found is None:
        return TextTable("Linearized robustness", header, [])
    rows = [
        *((f"{percent(s)} of the examples are closer than", v) for s, v in found.quantiles),
        ("median logit margin", found.margin),
        ("median dual norm of its gradient", found.gradient),
    ]
    shown = [[name, number(value)] for name, value in rows]
    return TextTable(f"Linearized robustness ({found.norm})", header, shown)


def _saliency(report: ReportData) -> TextTable:
    rows = [
        [group, *row[:3], mean(figure), spread(figure) if figure else ""]
        for group, found in saliency_rows([report])
        for row in found
        for figure in row.figures
    ]
    header = ["About", "Figure", "Of", "Better", "Mean", "95 % interval, examples"]
    return TextTable("Saliency maps", header, rows)


def _settings(report: ReportData) -> TextTable:
    parts: dict[str, Mapping[str, Any]] = {
        "Model": report.model,
        "Data": report.data,
        "Threat model": report.threat_model,
        "Evaluation": report.settings,
        "Saliency maps": report.saliency.settings if report.saliency else {},
        "Attack of the curve": report.curve_attack.get("config") or {},
        "Version": report.versions,
    }
    rows = [[part, k, plain(v)] for part, of in parts.items() for k, v in of.items()]
    rows += [["Time", key, duration(value)] for key, value in report.seconds.items()]
    return TextTable("Settings", ["Kind", "Name", "Value"], rows)


def summary(report: ReportData) -> str:
    """Say what was attacked how and what came of it, one sentence or two per line."""
    return "\n".join(sentences(report))


def sentences(report: ReportData) -> list[str]:
    """Return the lines of `summary`."""
    lines = [
        _attacked(report),
        _black_box(report),
        f"Without attack, {percent(report.clean.accuracy)} are classified rightly "
        f"(95 % interval {between(report.clean)}).",
        _worst_case(report),
        transfer_words(report),
        _diagnostics(report),
        saliency_words(report),
        _errors(report),
    ]
    return [line for line in lines if line]


def _attacked(report: ReportData) -> str:
    model, shown = report.model, examples(report.clean.total)
    counts = [key for key in ("parameters", "classes") if key in model]
    facts = [f"{number(model[key])} {key}" for key in counts]
    known = ", ".join([*facts, "hardened"] if model.get("hardened") else facts)
    name = f"{model.get('name') or 'The model'}{f' ({known})' if known else ''}"
    names = [attack.name for attack in report.attacks if attack.accuracy]
    if not names:
        what = "No attack worked." if report.attacks else "No attack was run."
        return f"{name} was shown {shown}. {what}"
    threat = report.threat_model
    norm = NORMS.get(str(threat.get("norm")), str(threat.get("norm", "?")))
    reach = radius(threat.get("epsilon", math.nan), threat.get("input_range"))
    levels = threat.get("levels")
    rounded = "" if levels is None else f", rounded to {levels} values"
    methods = "one attack" if len(names) == 1 else f"{len(names)} attacks"
    return (
        f"{name} was attacked on {shown} with {methods}, {listing(names)}, "
        f"which may change an input by at most {reach} in the {norm} norm{rounded}."
    )


def _black_box(report: ReportData) -> str:
    reason, asked = report.model.get("no_gradient"), report.queries
    text = f"{reason} What needs a gradient was left out." if reason else ""
    if asked is None:
        return text
    return f"{text} It was asked about {number(asked)} inputs per example.".strip()


def _worst_case(report: ReportData) -> str:
    rate, chance = report.robust, report.chance
    if not any(attack.accuracy for attack in report.attacks):
        return ""
    text = (
        f"Against the strongest attack on each example, {percent(rate.accuracy)} remain right (95 "
        f"% interval {between(rate)}). Attacks that were not run may break more."
    )
    what = "do as well:" if rate.low <= chance else "give"
    what = "be right more often:" if rate.high < chance else what
    return f"{text} Guessing would {what} {percent(chance)}."


def _diagnostics(report: ReportData) -> str:
    total = len(report.findings)
    suspect = [f.title for f in report.findings if f.status == "suspect"]
    skipped = sum(f.status == "skipped" for f in report.findings)
    rules = "1 rule" if total - skipped == 1 else f"{total - skipped} rules"
    left_out = f" ({skipped} could not be checked)" if skipped else ""
    if not total:
        return "No diagnostics were run."
    if skipped == total:
        return f"The diagnostics could not be run ({skipped} skipped)."
    if suspect:
        return (
            f"Of {rules} of the diagnostics {len(suspect)} found something suspect"
            f"{left_out}. In doubt: {'; '.join(suspect).lower()}. Until that is "
            "explained, the model may be less robust than the figures say."
        )
    if decided(report):
        return f"Of {rules} of the diagnostics none found anything suspect{left_out}."
    of = f"{rules} of {total} could be checked."
    return f"The diagnostics are no clean bill: only {of}"


def _errors(report: ReportData) -> str:
    failed = [attack.name for attack in report.attacks if attack.error]
    if not failed and not report.errors:
        return ""
    # Older reports may have errors of attacks alone.
    errors = report.errors or [f"not without errors: {listing(failed)}."]
    told = " ".join(text if text[-1:] in ".!?" else f"{text}." for text in errors)
    return f"Not everything worked: {told} The figures come from what did work."


def markdown_page(reports: Sequence[ReportData]) -> str:
    """Write reports as Markdown with tables (GitHub Flavored Markdown)."""
    if not reports:
        raise ValueError("Nothing to show: got no report, expected at least one.")
    if len(reports) == 1:
        report = reports[0]
        title = report.title or "Robustness of a model"
        parts = [f"# {escape(title)}", "## Summary", _summary(report)]
        parts += [*_key_figures(reports), *_transfer(reports), *_tables(report, "##")]
    else:
        parts = ["# Comparison of models", *(escape(t) for t in compared(reports))]
        parts += [*_key_figures(reports), *_transfer(reports)]
        for name, report in zip(labels(reports), reports, strict=True):
            parts += [f"## {escape(name)}", _summary(report), *_tables(report, "###")]
    text = "\n\n".join(parts) + "\n"
    # A lone surrogate, which JSON can hold, would make the page impossible to save.
    return text.encode("utf-8", "replace").decode()


def escape(text: str) -> str:
    """Make a text mean itself in Markdown, on one line."""
    text = re.sub(r"([\\`*_{}\[\]<>#|~$&])", r"\\\1", " ".join(text.split()))
    # At the start of a line these would begin a list or underline a heading.
    return re.sub(r"^(\d*)([-+.)=])(?=\2|\s|$)", r"\1\\\2", text)


def _summary(report: ReportData) -> str:
    return "\n".join(f"- {escape(text)}" for text in sentences(report))


def _key_figures(reports: Sequence[ReportData]) -> list[str]:
    columns = labels(reports) if len(reports) > 1 else ["Value"]
    rows = [
        [row[0].name, *(f"{f.value} ({f.note})" if all(f) else f.value or f.note for f in row)]
        for row in zip(*map(key_figures, reports), strict=True)
    ]
    return ["## Key figures", _table(["Figure", *columns], rows)]


def _transfer(reports: Sequence[ReportData]) -> list[str]:
    parts = []
    for place, matrices in report_matrices(reports):
        whole = place is None or len(reports) == 1
        of = "" if whole else f" of {escape(labels(reports)[place or 0])}"
        parts.append(f"## Transfer{of}")
        for matrix in matrices:
            parts += [
                f"{escape(matrix.attack)}, ε = {number(matrix.epsilon)}: accuracy of "
                "the models in the columns on examples made against those in the rows",
                _matrix(matrix),
            ]
    return parts


def _matrix(matrix: Matrix) -> str:
    rows = [
        [source, *(rate(matrix.cells.get((source, t))) for t in matrix.targets)]
        for source in matrix.sources
    ]
    return _table(["Made against", *matrix.targets], rows)


def _tables(report: ReportData, level: str) -> list[str]:
    found = [
        (f"{level} {escape(table.heading)}", _table(table.header, table.rows))
        for table in report_tables(report)
    ]
    return [part for parts in found for part in parts]


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    top, *rest = ([escape(cell) for cell in row] for row in (header, *rows))
    lines = (top, ["---"] * len(header), *rest)
    return "\n".join(f"| {' | '.join(row)} |" for row in lines)
