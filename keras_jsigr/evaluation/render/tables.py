"""What the pages of a report show: names, formatted numbers, tables, comparisons."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

from keras_jsigr.evaluation.records import Rate, ReportData, SaliencyFigure, TransferRecord


def numbered(records: Sequence[Any], name: str) -> dict[Any, Any]:
    """Key records by name, and by which of that name they are."""
    seen: Counter[str] = Counter()
    found = {}
    for record in records:
        key = getattr(record, name)
        found[key, seen[key]] = record
        seen[key] += 1
    return found


def labels(reports: Sequence[ReportData]) -> list[str]:
    """Give every report a name of its own."""
    titles = [report.title or "Report" for report in reports]
    for names in (titles, [f"{r.model.get('name') or ''}" for r in reports]):
        if all(names) and len(set(names)) == len(names):
            return names
    return [f"{i}. {title}" for i, title in enumerate(titles, start=1)]


DASH = "\N{EN DASH}"
NORMS = {"linf": "L∞", "l2": "L2", "l1": "L1", "l0": "L0"}


def percent(share: float) -> str:
    """Write a share in percent, claiming neither none nor all unless it is."""
    if not math.isfinite(share):
        return DASH
    # The ends of an interval are rounded sums: what is that close to 0 or 1 is it.
    if 1e-9 < share < 0.0005:
        return "< 0.1 %"
    if 0.9995 <= share < 1 - 1e-9:
        return "> 99.9 %"
    return f"{abs(100 * share):.1f} %"


def between(rate: Rate) -> str:
    """Write the 95 % interval of a rate."""
    return f"{percent(rate.low).removesuffix(' %')}{DASH}{percent(rate.high)}"


def examples(count: int) -> str:
    """Write how many examples there are."""
    return f"{number(count)} example{'s' * (count != 1)}"


def number(value: Any) -> str:
    """Write a number in at most four significant digits, whole ones in full."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    if math.isnan(value):
        return "not a number"
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    # Four digits of a large number would be given as a power of ten.
    return f"{value:,.0f}" if 1e4 <= abs(value) < 1e15 else f"{value:.4g}"


def radius(epsilon: Any, input_range: Any = None) -> str:
    """Write a radius, with the usual fraction of 255 for inputs from 0 to 1."""
    text = number(epsilon)
    if list(input_range or ()) != [0.0, 1.0] or not isinstance(epsilon, float):
        return text
    pixels = epsilon * 255
    if not math.isfinite(pixels) or not 0 < pixels < 100 or len(text) < 5:
        return text
    whole = round(pixels)
    return f"{text} ({whole}/255)" if whole and abs(pixels - whole) < 1e-4 else text


def duration(seconds: float) -> str:
    """Write a time span."""
    if not math.isfinite(seconds):
        return DASH
    if seconds < 59.95:
        return f"{seconds:.2f} s" if seconds < 1 else f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def listing(names: Sequence[str]) -> str:
    """Join names as a sentence does."""
    *most, last = names or [""]
    return f"{', '.join(most)} and {last}" if most else last


def plain(value: Any) -> str:
    """Write any value of a JSON file on one line."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {plain(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return f"({', '.join(map(plain, value))})"
    # Seeds and settings in full: these are for repeating, not for reading.
    shown = f"{value:.12g}" if isinstance(value, float) else ""
    return shown.replace("inf", "∞") or f"{value}"


def mismatches(reports: Sequence[ReportData]) -> list[str]:
    """Say in words in what evaluations differ, so that figures do not compare."""
    found = []
    for name, part, key in (
        ("norm", "threat_model", "norm"),
        ("epsilon", "threat_model", "epsilon"),
        ("input range", "threat_model", "input_range"),
        ("levels", "threat_model", "levels"),
        ("data", "data", "fingerprint"),
    ):
        values = [getattr(report, part).get(key) for report in reports]
        if _differ(values):
            pairs = zip(values, reports, strict=True)
            listed = ", ".join(f"{_short(v)} ({report.title})" for v, report in pairs)
            found.append(f"The reports differ in {name}: {listed}.")
    # Reports with transfer attacks say so; older ones do not.
    moved = [[a for a in r.attacks if a.access == "transfer"] for r in reports]
    suites = [
        [(a.name, _without(a.config, "verbose")) for a in r.attacks if a not in transfer]
        for r, transfer in zip(reports, moved, strict=True)
    ]
    # No model is its own surrogate, so the sources of transfer differ between models:
    # that matters only where they changed the result.
    sources = [[_without(a.config, "settings") for a in transfer] for transfer in moved]
    everything = [attack for transfer in moved for attack in transfer]
    by_transfer = any(attack.broken for attack in everything)
    settings = [
        [_without(config, "verbose") for config in attack.config["settings"].values()]
        for attack in everything
        if "settings" in attack.config
    ]
    records = [report.saliency for report in reports if report.saliency is not None]
    maps = [(_without(r.settings, "batch_size"), r.images) for r in records]
    says = {
        "the attacks or their settings: the worst cases are over different suites.": (
            _differ(suites) or (by_transfer and _differ(sources))
        ),
        "the transfer attacks or their settings: the figures under transfer are of "
        "different attacks.": _differ(settings),
        "how their saliency maps were measured, or on which examples: the figures of "
        "the maps do not compare.": _differ(maps),
    }
    return found + [f"The reports differ in {what}" for what, true in says.items() if true]


def _differ(values: list[Any]) -> bool:
    return any(value != values[0] for value in values)


def _without(config: dict[str, Any], *names: str) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key not in names}


def _short(value: Any) -> str:
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 20 else text[:8]


def compared(reports: Sequence[ReportData]) -> list[str]:
    """Say which model holds best, or why that cannot be said."""
    if len(reports) < 2:
        return []
    differences = mismatches(reports)
    if differences:
        return [*differences, "Their figures do not compare directly."]
    if not all(any(a.accuracy for a in report.attacks) for report in reports):
        return []
    pairs = zip(labels(reports), (report.robust for report in reports), strict=True)
    (first, best), *rest = sorted(pairs, key=lambda pair: -pair[1].accuracy)
    others = ", ".join(f"{name} {percent(rate.accuracy)}" for name, rate in rest)
    text = (
        f"Under attack {first} remains right most often, {percent(best.accuracy)} of "
        f"the time; {others}."
    )
    close = [name for name, rate in rest if rate.high >= best.low]
    if close:
        text += (
            f" The intervals of {first} and {', '.join(close)} overlap: which is "
            "better may be chance."
        )
    return [text]


# What earlier versions called the worst of all sources without marking it; it came
# last, after at least two surrogates.
_UNIONS = ("any surrogate", "any of the surrogates")


def strongest_transfer(report: ReportData, single: bool = False) -> TransferRecord | None:
    """Find the examples of other models, or one source, that leave the fewest right."""
    found = [r for r in report.transfer if r.source != r.target]
    if single:
        last = list(dict.fromkeys(r.source for r in found))[2:][-1:]
        unions = {r.source for r in found if r.union} or {*last} & {*_UNIONS}
        found = [r for r in found if r.source not in unions]
    at_limit = [r for r in found if in_threat_model(report, r)]
    return min(at_limit or found, key=_share, default=None)


def in_threat_model(report: ReportData, record: TransferRecord) -> bool:
    """Say whether a transfer result is about the radius of the threat model."""
    epsilon = report.threat_model.get("epsilon")
    return isinstance(epsilon, int | float) and _same(record.epsilon, epsilon)


def transfer_words(report: ReportData) -> str:
    """Compare transfer with access to the model."""
    worst = strongest_transfer(report)
    if worst is None:
        return (
            "Transfer from other models was not measured: pass `surrogates`, models "
            "trained for the same task, and it is."
        )
    within = in_threat_model(report, worst)
    reach = "" if within else f" within {number(worst.epsilon)}"
    text = (
        f"Examples made against other models{reach} leave {percent(_share(worst))} "
        f"right at worst ({worst.attack} against {worst.source})"
    )
    single = strongest_transfer(report, single=True)
    home = single and _with_access(report, single)
    if single and home:
        if single is not worst:
            text += f"; those of the best single source {percent(_share(single))} "
            text += f"({single.attack} against {single.source})"
        text += f"; with access to the model, {single.attack} leaves "
        text += f"{percent(_share(home))}. {_difference(single, home)}"
    else:
        text += "."
    if within and report.attacks and _share(worst) < report.robust.accuracy:
        text += (
            " That is below what the attacks on the model itself found: its accuracy "
            f"under attack is at most {percent(_share(worst))}."
        )
    return text


def _with_access(report: ReportData, foreign: TransferRecord) -> TransferRecord | None:
    own = [r for r in report.transfer if r.source == r.target == foreign.target]
    found = [r for r in own if r.attack == foreign.attack]
    found = [r for r in found if _same(r.epsilon, foreign.epsilon)]
    # Older reports may have several of one name: which is the same attack, is lost.
    return found[0] if len(found) == 1 else None


def _difference(foreign: TransferRecord, home: TransferRecord) -> str:
    if foreign.accuracy.low > home.accuracy.high:
        return "Access makes the attack stronger, as it should."
    if foreign.accuracy.high < home.accuracy.low:
        return (
            "Access makes the attack weaker: the model's gradients mislead, and the "
            "accuracy under attack is overestimated."
        )
    return "The intervals overlap: access makes no clear difference."


def _share(record: TransferRecord) -> float:
    return record.accuracy.accuracy


def _same(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=1e-6)


class KeyFigure(NamedTuple):
    """One figure, with what is to be said of it."""

    name: str
    value: str
    note: str = ""


def key_figures(report: ReportData) -> list[KeyFigure]:
    """Choose the figures to show first."""
    transfer = strongest_transfer(report)
    quantiles = dict(report.linearized.quantiles if report.linearized else [])
    suspect = sum(finding.status == "suspect" for finding in report.findings)
    checked = sum(finding.status != "skipped" for finding in report.findings)
    verdict = f"{suspect} suspect" if suspect or decided(report) else "undecided"
    queries = f"{number(report.queries)} questions each" if report.queries else ""
    total, attacks = report.seconds.get("total"), report.attacks

    def rate(name: str, value: Rate | None, note: str, missing: str) -> KeyFigure:
        if value is None:
            return KeyFigure(name, "", missing)
        note = f"{note}95 % interval {between(value)}"
        return KeyFigure(name, percent(value.accuracy), note)

    return [
        rate(
            "Accuracy under attack",
            report.robust if any(a.accuracy for a in attacks) else None,
            "worst case per example, ",
            "no attack worked" if attacks else "no attack was run",
        ),
        rate("Accuracy without attack", report.clean, "", ""),
        KeyFigure("Accuracy of guessing", percent(report.chance)),
        rate(
            "Accuracy under transfer",
            transfer.accuracy if transfer else None,
            "at worst, ",
            "not measured",
        ),
        KeyFigure(
            "Linearized robustness",
            number(quantiles[0.5]) if 0.5 in quantiles else "",
            "median distance, input units" if 0.5 in quantiles else "not measured",
        ),
        KeyFigure(
            "Diagnostics",
            verdict if checked else "",
            f"{checked} of {len(report.findings)} rules checked" if checked else "not run",
        ),
        KeyFigure("Examples", number(report.clean.total), queries),
        KeyFigure("Time", "" if total is None else duration(total)),
    ]


def decided(report: ReportData) -> bool:
    """Tell whether most rules of the diagnostics could be checked, and none crashed."""
    skipped = sum(f.status == "skipped" for f in report.findings)
    crashed = any(f.crashed for f in report.findings)
    return 2 * skipped < len(report.findings) and not crashed


class Matrix(NamedTuple):
    """The accuracies under one attack at one radius."""

    attack: str
    epsilon: float
    sources: list[str]
    targets: list[str]
    cells: dict[tuple[str, str], Rate]


def matrices(records: Sequence[TransferRecord]) -> list[Matrix]:
    """Sort transfer results into one table per attack and radius."""
    attacks = list(dict.fromkeys(record.attack for record in records))
    groups: dict[tuple[int, float], list[TransferRecord]] = {}
    for record in records:
        key = (attacks.index(record.attack), record.epsilon)
        groups.setdefault(key, []).append(record)
    found = []
    for (place, epsilon), group in sorted(groups.items(), key=lambda item: item[0]):
        targets = list(dict.fromkeys(record.target for record in group))
        sources = dict.fromkeys(record.source for record in group)
        # The targets first, so that the diagonal is where access was full.
        sources = dict.fromkeys([*(t for t in targets if t in sources), *sources])
        cells = {(r.source, r.target): r.accuracy for r in group}
        found.append(Matrix(attacks[place], epsilon, list(sources), targets, cells))
    return found


def report_matrices(reports: Sequence[ReportData]) -> list[tuple[int | None, list[Matrix]]]:
    """Make the tables of one page, across the reports where that is sound."""
    together = [record for report in reports for record in report.transfer]
    if not together:
        return []
    setting = [w for w in mismatches(reports) if "differ in the attacks" not in w]
    if not setting and _distinct(reports) and _same_sources(reports):
        return [(None, matrices(together))]
    alone = [(place, matrices(report.transfer)) for place, report in enumerate(reports)]
    return [(place, found) for place, found in alone if found]


def _distinct(reports: Sequence[ReportData]) -> bool:
    """Say whether no result would take the place of another."""
    targets = [name for r in reports for name in {t.target for t in r.transfer}]
    together = [t for r in reports for t in r.transfer]
    keys = {(t.source, t.target, t.attack, t.epsilon) for t in together}
    return len({*targets}) == len(targets) and len(keys) == len(together)


def _same_sources(reports: Sequence[ReportData]) -> bool:
    """Say whether all that several reports made examples against is known to be one."""
    known: dict[str, list[set[str]]] = {}
    for report in reports:
        for name in {t.source for t in report.transfer}:
            prints = {t.fingerprint for t in report.transfer if t.source == name}
            known.setdefault(name, []).append(prints)
    shared = [set().union(*found) for found in known.values() if len(found) > 1]
    return all(len(prints) == 1 and "" not in prints for prints in shared)


def line_up(tables: Sequence[dict[Any, Any]]) -> list[tuple[Any, list[Any]]]:
    """Put what several tables have of each key side by side; `None`: nothing."""
    keys = dict.fromkeys(chain.from_iterable(tables))
    return [(key, [table.get(key) for table in tables]) for key in keys]


class SaliencyRow(NamedTuple):
    """One figure of all reports; `None` where a report lacks it."""

    metric: str
    condition: str
    better: str
    figures: list[SaliencyFigure | None]


def saliency_rows(reports: Sequence[ReportData]) -> list[tuple[str, list[SaliencyRow]]]:
    """Line up the figures that the reports have in common, group by group."""
    groups: dict[str, list[SaliencyRow]] = {}
    figures = [r.saliency.figures if r.saliency else [] for r in reports]
    tables = [{(f.group, f.metric, f.condition): f for f in row} for row in figures]
    for (group, metric, condition), row in line_up(tables):
        better = next(figure.better for figure in row if figure)
        found = SaliencyRow(metric, condition, better, row)
        groups.setdefault(group, []).append(found)
    return list(groups.items())


def mean(figure: SaliencyFigure | None) -> str:
    """Write the mean of a figure."""
    if figure is None or figure.mean is None:
        unknown = figure is not None and figure.unknown
        return "no finite value" if unknown else "not measured"
    return _decimal(figure.mean)


def spread(figure: SaliencyFigure) -> str:
    """Write the interval of a figure and the number of examples behind it."""
    if figure.low is None or figure.high is None:
        return examples(figure.images)
    return f"{_decimal(figure.low)} to {_decimal(figure.high)}, {examples(figure.images)}"


def saliency_words(report: ReportData) -> str:
    """Say in a few sentences what was measured of the maps."""
    record = report.saliency
    if record is None:
        return ""
    suspect = [f.title for f in record.findings if f.status == "suspect"]
    text = f"The {record.method} maps of {examples(record.images)} were measured."
    if suspect:
        text += f" Suspect: {listing(suspect)}."
    if record.errors:
        text += f" Not everything worked: {' '.join(record.errors)}"
    return " ".join([text, *(f.says for f in record.findings)])


def _decimal(value: float) -> str:
    return f"{value:.3f}" if value == 0 or 5e-4 <= abs(value) < 100 else number(value)
