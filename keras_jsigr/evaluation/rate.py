"""A share of examples with its interval."""

from __future__ import annotations

import math
from dataclasses import dataclass

# The 97.5 % quantile of the normal distribution: intervals hold 95 %.
_Z = 1.959963984540054


@dataclass(frozen=True)
class Rate:
    """Count how many of a number of examples are classified rightly.

    Attributes:
        correct: Their number, 0 to `total`.
        total: The number of examples, >= 1.

    Raises:
        ValueError: If the counts are impossible.

    Example:
        >>> from keras_jsigr.evaluation.rate import Rate
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
                "<= total and total >= 1. Count the same examples for both."
            )

    @property
    def accuracy(self) -> float:
        """The share, 0..1."""
        return self.correct / self.total

    @property
    def low(self) -> float:
        """The lower end of the 95 % Wilson interval (Wilson 1927), 0..1."""
        return max(0.0, self._centre - self._half)

    @property
    def high(self) -> float:
        """The upper end of the 95 % Wilson interval, 0..1."""
        return min(1.0, self._centre + self._half)

    @property
    def _centre(self) -> float:
        return (self.correct + _Z**2 / 2) / (self.total + _Z**2)

    @property
    def _half(self) -> float:
        p, n = self.accuracy, self.total
        spread = math.sqrt(p * (1 - p) / n + _Z**2 / (4 * n**2))
        return _Z * spread / (1 + _Z**2 / n)
