"""The plain data that a measurement of saliency maps consists of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from keras_jsigr.evaluation.records import Finding

Better = Literal["higher", "lower", ""]
# The 97.5 % quantile of the normal distribution: intervals hold 95 %.
_Z = 1.959963984540054


@dataclass(frozen=True, kw_only=True)
class SaliencyFigure:
    """The mean of one metric over the examples.

    Attributes:
        group: What it is about, such as `"Faithfulness"`.
        metric: Its name, such as `"Deletion"`.
        condition: Of several measurements which one, such as `"blur, random order"`.
        better: Which direction is better; empty for controls and mere descriptions.
        mean: Over the examples used; None if there was none. Reports of earlier
            versions may have NaN, where one example had.
        error: The standard error of the mean; None for fewer than two examples.
        images: The number of examples used.
        unknown: Of further examples there is no value: theirs, or that of their map, is
            NaN or infinite.

    Example:
        >>> from keras_jsigr.evaluation.saliency_records import SaliencyFigure
        >>> figure = SaliencyFigure(
        ...     group="Sparsity",
        ...     metric="Gini index",
        ...     condition="",
        ...     better="higher",
        ...     mean=0.5,
        ...     error=0.1,
        ...     images=9,
        ... )
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
        errors: Parts that crashed, and figures that some examples have no value of, in
            words.
    """

    method: str
    images: int
    figures: list[SaliencyFigure]
    findings: list[Finding]
    settings: dict[str, Any]
    seconds: dict[str, float]
    errors: list[str]

    def figure(self, metric: str, condition: str = "") -> SaliencyFigure:
        """Return one figure.

        Args:
            metric: Its name.
            condition: Which one of that name.

        Returns:
            The figure.

        Raises:
            KeyError: If it was not measured.
        """
        for figure in self.figures:
            if (figure.metric, figure.condition) == (metric, condition):
                return figure
        known = [(figure.metric, figure.condition) for figure in self.figures]
        raise KeyError(f"Got {(metric, condition)}, expected one of {known}.")
