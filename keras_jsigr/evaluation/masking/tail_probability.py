"""Exact tests of counts, so that chance accuses no model."""

from __future__ import annotations

import math
from typing import Any

import numpy.typing as npt

# Of all rules together some twenty tests are made: an honest model at the very edge of
# every tolerance is accused once in fifty evaluations, any other hardly ever.
SIGNIFICANCE = 1e-3
_FEW = 10


def tail_probability(count: int, total: int, share: float) -> float:
    """Compute the probability of at least `count` hits among `total`.

    `P(X >= count)` with `X ~ Binomial(total, share)`, summed in logarithms.

    Args:
        count: Observed hits, 0 to `total`.
        total: Number of independent examples, >= 0.
        share: Probability of a hit, above 0 and below 1.

    Returns:
        The probability, 0..1.

    Example:
        >>> from keras_jsigr.evaluation.masking.tail_probability import (
        ...     tail_probability,
        ... )
        >>> round(tail_probability(2, 2, 0.5), 6), tail_probability(0, 9, 0.1)
        (0.25, 1.0)
    """
    if count <= 0:
        return 1.0
    hit, miss = math.log(share), math.log1p(-share)
    terms = (
        math.exp(_log_choices(total, k) + k * hit + (total - k) * miss)
        for k in range(count, total + 1)
    )
    return min(1.0, math.fsum(terms))


def clearly_more(count: int, total: int, share: float) -> bool:
    """Tell whether hits are more than `share` of `total`, and not by chance.

    Args:
        count: Observed hits.
        total: Number of independent examples.
        share: What is tolerated, above 0 and below 1.

    Returns:
        True if `tail_probability` is below `SIGNIFICANCE`.

    Example:
        >>> from keras_jsigr.evaluation.masking.tail_probability import clearly_more
        >>> clearly_more(3, 100, 0.02), clearly_more(12, 100, 0.02)
        (False, True)
    """
    above = count > share * total
    return above and tail_probability(count, total, share) < SIGNIFICANCE


def clearly_moved(to: int, back: int, total: int, share: float) -> bool:
    """Tell whether examples changed sides in one direction, and not by chance.

    The net change has to exceed `share` of all examples, and `to` against `back` has to
    fail the exact sign test (McNemar).

    Args:
        to: Examples that changed in the direction in question.
        back: Examples that changed in the other direction.
        total: Number of examples.
        share: Net change that is tolerated, 0..1.

    Returns:
        True if both hold.

    Example:
        >>> from keras_jsigr.evaluation.masking.tail_probability import (
        ...     clearly_moved,
        ... )
        >>> clearly_moved(20, 1, 100, 0.05), clearly_moved(20, 14, 100, 0.05)
        (True, False)
    """
    chance = tail_probability(to, to + back, 0.5)
    return to - back > share * total and chance < SIGNIFICANCE


def standard_error(values: npt.NDArray[Any]) -> float:
    """Estimate the standard error of a mean, infinite where that is guesswork.

    Args:
        values: Float `(N,)`.

    Returns:
        `s / sqrt(N)` with the sample's standard deviation; infinity for fewer than ten
        values, so that nothing follows from them.

    Example:
        >>> import numpy as np
        >>> from keras_jsigr.evaluation.masking.tail_probability import standard_error
        >>> standard_error(np.ones(9)), standard_error(np.ones(10))
        (inf, 0.0)
    """
    few = len(values) < _FEW
    return math.inf if few else float(values.std(ddof=1) / math.sqrt(len(values)))


def _log_choices(total: int, count: int) -> float:
    lgamma = math.lgamma
    return lgamma(total + 1) - lgamma(count + 1) - lgamma(total - count + 1)
