"""The result of an evaluation: plain data, its file, and its pages."""

from __future__ import annotations

import dataclasses
import html
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from keras_jsigr.core.files import from_json, json_text, local_path, to_json, write_whole
from keras_jsigr.evaluation.records import Rate, ReportData, SaliencyRecord
from keras_jsigr.evaluation.render.figures import figure_of, png_figure
from keras_jsigr.evaluation.render.html import html_page
from keras_jsigr.evaluation.render.tables import mismatches
from keras_jsigr.evaluation.render.text import markdown_page, summary

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SCHEMA = 1


class _Savable(ABC):
    """What is written as JSON or as a page."""

    @abstractmethod
    def to_document(self) -> dict[str, Any]: ...

    @abstractmethod
    def _reports(self) -> Sequence[Report]: ...

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it as `.json`, or as one page: `.html`, `.md` or `.png`.

        Args:
            path: The suffix says the format. Parent folders are made.

        Raises:
            ValueError: If the suffix is none of these.
            ImportError: If a format needs a package that is not installed.
        """
        path = local_path(path)
        suffix = path.suffix.lower()
        if suffix == ".json":
            # Lone surrogates (undecodable file names) cannot be encoded: as escapes.
            data = json_text(self.to_document()).encode(errors="backslashreplace")
        elif suffix in _PAGES:
            data = _PAGES[suffix](self._reports())
        else:
            raise ValueError(
                f"No format for '{path}': got suffix {path.suffix!r}, expected one of "
                f"{['.json', *_PAGES]}. Rename the file."
            )
        write_whole(path, data)

    def plot(self) -> Figure:
        """Draw what `save("report.png")` writes.

        Returns:
            A `matplotlib.figure.Figure`, which pyplot does not know.

        Raises:
            ImportError: If matplotlib is not installed.
        """
        return figure_of(self._reports())

    def _repr_html_(self) -> str | None:
        """Show the page in a notebook, in a frame of its own; text without jinja2."""
        try:
            page = html_page(self._reports())
        except ImportError:
            return None
        frame = 'style="width:100%;height:640px;border:0" sandbox="allow-scripts"'
        return f'<iframe {frame} srcdoc="{html.escape(page)}"></iframe>'


_PAGES: dict[str, Callable[[Sequence[ReportData]], bytes]] = {
    ".html": lambda reports: html_page(reports).encode(),
    ".md": lambda reports: markdown_page(reports).encode(),
    ".png": png_figure,
}


@dataclass(frozen=True, kw_only=True)
class Report(_Savable, ReportData):
    """Hold what `evaluate_robustness` found, as plain data that fits into JSON.

    Attributes:
        title: What the page is called.
        model: `name`, `parameters`, `classes`, `input_shape`, `hardened`, `settings`.
        threat_model: `norm`, `epsilon`, `input_range`, and `levels` if inputs were rounded.
        data: `images` (their number) and `fingerprint`.
        clean: Accuracy without attack.
        robust: Accuracy under the per-example worst case, the headline.
        attacks: What each attack did, in the order run.
        classes: The same per class.
        curve: Accuracy over the radius, ascending; the first radius is 0.
        curve_attack: `name` and `config` of the attack behind the curve.
        chance: Accuracy of guessing: the largest class, or one of all classes.
        transfer: Accuracy on examples of other models, and of its own to compare.
        linearized: Distribution of the linearized robustness, if it was computed.
        findings: What the diagnostics say.
        examples: Some fooled examples with pictures.
        settings: Arguments of the `evaluate_robustness` call.
        versions: Of `python`, `tensorflow`, `keras`, `numpy`, `keras_jsigr`.
        seconds: Wall time of each part, and `total`.
        errors: Parts that crashed, in words.
        saliency: Metrics of the saliency maps, if they were measured.
        queries: Questions per example to a callable without a gradient.

    Raises:
        TypeError: If something in it does not fit into JSON.
        ValueError: If something in it has the wrong type.

    Example:
        >>> from keras_jsigr.evaluation import Rate, Report
        >>> rates = {"clean": Rate(90, 100), "robust": Rate(60, 100)}
        >>> report = Report(title="A net", chance=0.1, **rates)
        >>> Report.from_document(report.to_document()) == report
        True
    """

    def to_document(self) -> dict[str, Any]:
        """Return the contents of the JSON file: `schema` and one key per attribute."""
        document: dict[str, Any] = to_json(self)
        return {"schema": SCHEMA, **document}

    @classmethod
    def from_document(cls, document: Any, origin: str = "the report") -> Report:
        """Make a report of what `to_document` returned; `origin` is for messages."""
        schema = document.get("schema") if isinstance(document, dict) else None
        if schema != SCHEMA:
            raise ValueError(
                f"{origin} is no report that this version can read: got schema {schema!r}, "
                f"expected {SCHEMA}. Update keras_jsigr, or make the report again."
            )
        rest = {key: value for key, value in document.items() if key != "schema"}
        report: Report = from_json(cls, rest, origin)
        return report

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Report:
        """Read a report that `save` wrote as `.json`; it is equal to the one saved.

        Raises:
            ValueError: If the file is damaged, no report, or of a newer format.
        """
        return cls.from_document(read_json(path), f"'{path}'")

    def with_saliency(self, record: SaliencyRecord) -> Report:
        """Return the report with the figures of `evaluate_saliency(...)["name"]`."""
        return dataclasses.replace(self, saliency=record)

    def summary(self) -> str:
        """Say the result in a few sentences."""
        return summary(self)

    def to_dataframe(self) -> Any:
        """Return the accuracies as a pandas data frame.

        Returns:
            A row for "clean", each attack, and "worst case": `name`, `access`, `accuracy` and
            its 95 % interval `low` to `high` (0..1, NaN where an attack did not finish),
            `images`, `seconds`, `error`.

        Raises:
            ImportError: If pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise ImportError(f"{error}; a data frame needs it: pip install pandas") from error
        rows: list[tuple[str, str, Rate | None, float, str | None]]
        rows = [("clean", "", self.clean, 0.0, None)]
        rows += [(a.name, a.access, a.accuracy, a.seconds, a.error) for a in self.attacks]
        rows += [("worst case", "", self.robust, self.seconds.get("total", 0.0), None)]
        rates = [row[2] for row in rows]
        return pandas.DataFrame(
            {
                "name": [row[0] for row in rows],
                "access": [row[1] for row in rows],
                "accuracy": [rate and rate.accuracy for rate in rates],
                "low": [rate and rate.low for rate in rates],
                "high": [rate and rate.high for rate in rates],
                "images": [rate and rate.total for rate in rates],
                "seconds": [row[3] for row in rows],
                "error": [row[4] for row in rows],
            }
        )

    def _reports(self) -> Sequence[Report]:
        return [self]

    def __repr__(self) -> str:
        return (
            f"Report({self.title!r}, clean {self.clean.accuracy:.1%}, robust "
            f"{self.robust.accuracy:.1%}, {self.threat_model})"
        )


def read_json(path: str | os.PathLike[str]) -> Any:
    """Read a file of strict JSON."""

    def refuse(constant: str) -> Any:
        raise ValueError(f"{constant} is no JSON number")

    text = local_path(path).read_bytes()
    try:
        return json.loads(text.decode(), parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"'{path}' is no JSON file: {error}. Give a file that `save` wrote with "
            "the suffix .json."
        ) from error


@dataclass(frozen=True)
class Comparison(_Savable):
    """Reports to be read side by side.

    Attributes:
        reports: At least one, in the order given.
        warnings: In what the evaluations differ, so that the figures do not compare.

    Raises:
        TypeError: If something else than reports is given.
        ValueError: If there is none.
    """

    reports: tuple[Report, ...]
    warnings: list[str] = field(init=False)

    def __post_init__(self) -> None:
        """Check the reports and note where they differ."""
        object.__setattr__(self, "reports", tuple(self.reports))
        if not self.reports:
            raise ValueError("Nothing to compare: got no report, expected at least one.")
        for report in self.reports:
            if not isinstance(report, Report):
                raise TypeError(
                    f"Got a {type(report).__name__}, expected reports. Use Report.load."
                )
        object.__setattr__(self, "warnings", mismatches(self.reports))

    def _reports(self) -> Sequence[Report]:
        return self.reports

    def to_document(self) -> dict[str, Any]:
        """Return the contents of the JSON file: `schema`, `reports`, `warnings`."""
        reports = [report.to_document() for report in self.reports]
        return {"schema": SCHEMA, "warnings": self.warnings, "reports": reports}

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read what `save` wrote as `.json`.

        Raises:
            ValueError: If the file is damaged, no comparison, or of a newer format.
        """
        document = read_json(path)
        reports = document.get("reports") if isinstance(document, dict) else None
        if not isinstance(reports, list):
            what = f"'{path}' holds no comparison: expected a list `reports`."
            raise ValueError(f"{what} Read a single report with Report.load(path).")
        return cls(tuple(Report.from_document(part, f"'{path}'") for part in reports))


def compare(reports: Sequence[Report]) -> Comparison:
    """Put reports side by side.

    Args:
        reports: At least one.

    Returns:
        The comparison, whose `warnings` say in what data, threat models or attacks
        differ, with `save("a.html")`, `.md`, `.png` and `.json`.

    Raises:
        TypeError, ValueError: As `Comparison`.

    Example:
        >>> from keras_jsigr.evaluation import Rate, Report, compare
        >>> rates = {"clean": Rate(90, 100), "robust": Rate(60, 100)}
        >>> compare([Report(title=name, chance=0.1, **rates) for name in "ab"]).warnings
        []
    """
    return Comparison(tuple(reports))
