"""The plain data that an evaluation consists of; all of it fits into JSON."""

from __future__ import annotations

import math
import typing
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from keras_jsigr.core.files import from_json, to_json

# The 97.5 % quantile of the normal distribution: intervals hold 95 %.
_Z = 1.959963984540054

Access = Literal["white box", "black box", "decision", "transfer", "noise"]
Status = Literal["ok", "suspect", "skipped"]
Better = Literal["higher", "lower", ""]


@dataclass(frozen=True)
class Rate:
    """Count how many of a number of examples are classified rightly.

    Attributes:
        correct: Their number, 0 to `total`.
        total: The number of examples, >= 1.

    Raises:
        ValueError: If the counts are impossible.

    Example:
        >>> from keras_jsigr.evaluation import Rate
        >>> rate = Rate(80, 100)
        >>> rate.accuracy, round(rate.low, 3), round(rate.high, 3)
        (0.8, 0.711, 0.867)
    """

    correct: int
    total: int

    def __post_init__(self) -> None:
        """Check the counts."""
        if self.total < 1 or not 0 <= self.correct <= self.total:
            raise ValueError(
                f"No rate: got {self.correct} of {self.total}, expected 0 <= correct "
                "<= total and total >= 1."
            )

    @property
    def accuracy(self) -> float:
        """The share, 0..1."""
        return self.correct / self.total

    @property
    def low(self) -> float:
        """The lower end of the 95 % Wilson interval (Wilson 1927), 0..1."""
        return max(0.0, self._interval[0])

    @property
    def high(self) -> float:
        """The upper end of the 95 % Wilson interval, 0..1."""
        return min(1.0, self._interval[1])

    @property
    def _interval(self) -> tuple[float, float]:
        p, n, z = self.accuracy, self.total, _Z**2
        centre = (self.correct + z / 2) / (n + z)
        half = _Z * math.sqrt(p * (1 - p) / n + z / (4 * n**2)) / (1 + z / n)
        return centre - half, centre + half


@dataclass(frozen=True, kw_only=True)
class AttackRecord:
    """What one attack did."""

    name: str
    access: Access
    config: dict[str, Any]
    attacked: int
    broken: int
    accuracy: Rate | None  # None: it did not finish
    seconds: float
    error: str | None = None


@dataclass(frozen=True, kw_only=True)
class ClassRecord:
    """The examples of one class."""

    name: str
    clean: Rate
    robust: Rate


@dataclass(frozen=True, kw_only=True)
class CurvePoint:
    """Accuracy at one radius, in input units."""

    epsilon: float
    accuracy: Rate


@dataclass(frozen=True, kw_only=True)
class TransferRecord:
    """Accuracy of `target` on examples made against `source`."""

    source: str
    target: str
    attack: str
    epsilon: float
    accuracy: Rate
    union: bool = False
    fingerprint: str = ""


@dataclass(frozen=True, kw_only=True)
class LinearizedRecord:
    """Distribution over the examples of the linearized robustness, in input units."""

    norm: str
    quantiles: list[tuple[float, float]]
    margin: float
    gradient: float


CRASHED = "The rule crashed: "  # how a finding starts whose rule did


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What one rule of the diagnostics found."""

    rule: str
    title: str
    status: Status
    says: str
    figures: dict[str, float]
    advice: str = ""

    @property
    def crashed(self) -> bool:
        """Whether the rule was skipped because it failed."""
        return self.status == "skipped" and self.says.startswith(CRASHED)


@dataclass(frozen=True, kw_only=True)
class ExampleRecord:
    """One example that was fooled, for the eye."""

    index: int
    label: str
    predicted: str
    adversarial: str
    attack: str
    distance: float
    pictures: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class SaliencyFigure:
    """The mean of one metric over the examples.

    Attributes:
        group: What it is about, such as `"Faithfulness"`.
        metric: Its name, such as `"Deletion"`.
        condition: Of several measurements which one, such as `"blur, random order"`.
        better: Which direction is better; empty for controls and mere descriptions.
        mean: Over the examples used; None if there was none, in old reports also NaN.
        error: The standard error of the mean; None for fewer than two examples.
        images: The number of examples used.
        unknown: The number of further examples whose value or map is not finite.

    Example:
        >>> from keras_jsigr.evaluation import SaliencyFigure
        >>> about = {"group": "Sparsity", "metric": "Gini index", "condition": ""}
        >>> measured = {"better": "higher", "mean": 0.5, "error": 0.1, "images": 9}
        >>> figure = SaliencyFigure(**about, **measured)
        >>> round(figure.low, 3), round(figure.high, 3)
        (0.304, 0.696)
    """

    group: str
    metric: str
    condition: str
    better: Better
    mean: float | None
    error: float | None
    images: int
    unknown: int = 0

    @property
    def low(self) -> float | None:
        """The lower end of the 95 % interval of the mean, by the normal law."""
        if self.mean is None or self.error is None:
            return None
        return self.mean - _Z * self.error

    @property
    def high(self) -> float | None:
        """The upper end of the 95 % interval of the mean."""
        if self.mean is None or self.error is None:
            return None
        return self.mean + _Z * self.error


@dataclass(frozen=True, kw_only=True)
class SaliencyRecord:
    """What was measured of the saliency maps of one model.

    Attributes:
        method: How the maps were made, such as `"gradient"`.
        images: The number of examples explained.
        figures: In the order to show.
        findings: What is to be said of the figures in words.
        settings: Of the measurement.
        seconds: Wall time of each part, and `total`.
        errors: Parts that crashed and values that are missing, in words.
    """

    method: str
    images: int
    figures: list[SaliencyFigure]
    findings: list[Finding]
    settings: dict[str, Any]
    seconds: dict[str, float]
    errors: list[str]

    def figure(self, metric: str, condition: str = "") -> SaliencyFigure:
        """Return the figure of a metric; `KeyError` if it was not measured."""
        known = {(each.metric, each.condition): each for each in self.figures}
        if (metric, condition) not in known:
            raise KeyError(f"Got {(metric, condition)}, expected one of {[*known]}.")
        return known[metric, condition]


@dataclass(frozen=True, kw_only=True)
class ReportData:
    """The fields of a `Report`, which documents them: what the pages are made of."""

    title: str
    clean: Rate
    robust: Rate
    chance: float
    model: dict[str, Any] = field(default_factory=dict)
    threat_model: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    attacks: list[AttackRecord] = field(default_factory=list)
    classes: list[ClassRecord] = field(default_factory=list)
    curve: list[CurvePoint] = field(default_factory=list)
    curve_attack: dict[str, Any] = field(default_factory=dict)
    transfer: list[TransferRecord] = field(default_factory=list)
    linearized: LinearizedRecord | None = None
    findings: list[Finding] = field(default_factory=list)
    examples: list[ExampleRecord] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    saliency: SaliencyRecord | None = None
    queries: float | None = None

    def __post_init__(self) -> None:
        """Convert all values to the types that a file gives back."""
        hints = typing.get_type_hints(type(self))
        for each in fields(self):
            value = to_json(getattr(self, each.name), each.name)
            plain = from_json(hints[each.name], value, each.name)
            object.__setattr__(self, each.name, plain)
