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
    """Hold one table; every row is as long as the header."""

    heading: str
    header: list[str]
    rows: list[list[str]]


_FINDING = ["Status", "Rule", "Finding", "Figures", "What to do"]


def report_tables(report: ReportData) -> list[TextTable]:
    """Write everything but summary, key figures and transfer as tables."""
    rates = ["Without attack", "Under attack"]
    name = report.curve_attack.get("name")
    curve = f"Accuracy by radius ({name})" if name else "Accuracy by radius"
    points = [[number(p.epsilon), rate(p.accuracy)] for p in report.curve]
    classes = [[c.name, rate(c.clean), rate(c.robust)] for c in report.classes]
    examples = [
        [
            str(e.index),
            e.label,
            e.predicted,
            e.adversarial,
            e.attack,
            number(e.distance),
        ]
        for e in report.examples
    ]
    maps = report.saliency
    about_maps = [_finding(f) for f in maps.findings] if maps else []
    about_maps += [
        ["error", text, "", "", ""] for text in (maps.errors if maps else [])
    ]
    tables = [
        TextTable("What went wrong", ["Part"], [[text] for text in report.errors]),
        TextTable(curve, ["ε", "Accuracy"], points),
        _attacks(report),
        TextTable("Diagnostics", _FINDING, [_finding(f) for f in report.findings]),
        _linearized(report),
        TextTable("Classes", ["Class", *rates], classes),
        TextTable(
            "Examples", ["Example", "Class", *rates, "Attack", "Distance"], examples
        ),
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
    if value is None:
        return "not measured"
    return f"{percent(value.accuracy)} ({between(value)})"


def _attacks(report: ReportData) -> TextTable:
    header = ["Attack", "Access", "Attacked", "Broken", "Accuracy after", "Time"]
    rows = [
        [
            *(a.name, a.access, number(a.attacked), number(a.broken)),
            *(rate(a.accuracy), duration(a.seconds), plain(a.config), a.error or ""),
        ]
        for a in report.attacks
    ]
    return TextTable("Attacks", [*header, "Settings", "Error"], rows)


def _linearized(report: ReportData) -> TextTable:
    found = report.linearized
    rows = []
    if found is not None:
        rows = [
            [f"{percent(share)} of the examples are closer than", number(value)]
            for share, value in found.quantiles
        ]
        rows.append(["median logit margin", number(found.margin)])
        rows.append(["median dual norm of its gradient", number(found.gradient)])
    norm = f" ({found.norm})" if found else ""
    return TextTable(f"Linearized robustness{norm}", ["Figure", "Value"], rows)


def _saliency(report: ReportData) -> TextTable:
    rows = [
        [
            *(group, row.metric, row.condition, row.better),
            *(mean(figure), spread(figure) if figure else ""),
        ]
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
    rows = [
        [part, key, plain(value)]
        for part, values in parts.items()
        for key, value in values.items()
    ]
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
    model, examples = report.model, number(report.clean.total)
    facts = [
        f"{number(model['parameters'])} parameters" if "parameters" in model else "",
        f"{number(model['classes'])} classes" if "classes" in model else "",
        "hardened" if model.get("hardened") else "",
    ]
    known = ", ".join(fact for fact in facts if fact)
    name = f"{model.get('name') or 'The model'}{f' ({known})' if known else ''}"
    names = [attack.name for attack in report.attacks if attack.accuracy]
    if not names:
        what = "No attack worked." if report.attacks else "No attack was run."
        return f"{name} was shown {examples} examples. {what}"
    threat = report.threat_model
    norm = NORMS.get(str(threat.get("norm")), str(threat.get("norm", "?")))
    reach = radius(threat.get("epsilon", math.nan), threat.get("input_range"))
    methods = "one attack" if len(names) == 1 else f"{len(names)} attacks"
    return (
        f"{name} was attacked on {examples} examples with {methods}, "
        f"{listing(names)}, which may change an input by at most {reach} in the "
        f"{norm} norm."
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
        f"Against the strongest attack on each example, {percent(rate.accuracy)} "
        f"remain right (95 % interval {between(rate)}). Attacks that were "
        "not run may break more."
    )
    if rate.high < chance:
        return f"{text} Guessing would be right more often: {percent(chance)}."
    if rate.low <= chance:
        return f"{text} Guessing would do as well: {percent(chance)}."
    return f"{text} Guessing would give {percent(chance)}."


def _diagnostics(report: ReportData) -> str:
    if not report.findings:
        return "No diagnostics were run."
    suspect = [f.title for f in report.findings if f.status == "suspect"]
    skipped = sum(f.status == "skipped" for f in report.findings)
    checked = len(report.findings) - skipped
    rules = "1 rule" if checked == 1 else f"{checked} rules"
    left_out = f" ({skipped} could not be checked)" if skipped else ""
    if not checked:
        return f"The diagnostics could not be run ({skipped} skipped)."
    if not suspect and not decided(report):
        return (
            f"The diagnostics are no clean bill: only {rules} of {len(report.findings)}"
            " could be checked."
        )
    if not suspect:
        return f"Of {rules} of the diagnostics none found anything suspect{left_out}."
    return (
        f"Of {rules} of the diagnostics {len(suspect)} found something suspect"
        f"{left_out}. In doubt: {'; '.join(suspect).lower()}. Until that is explained, "
        "the model may be less robust than the figures say."
    )


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
        [figures[0].name, *(_joined(one.value, one.note) for one in figures)]
        for figures in zip(*map(key_figures, reports), strict=True)
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
    return [
        part
        for table in report_tables(report)
        for part in (
            f"{level} {escape(table.heading)}",
            _table(table.header, table.rows),
        )
    ]


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    top, *rest = ([escape(cell) for cell in row] for row in (header, *rows))
    lines = (top, ["---"] * len(header), *rest)
    return "\n".join(f"| {' | '.join(row)} |" for row in lines)


def _joined(value: str, note: str) -> str:
    return f"{value} ({note})" if value and note else value or note
