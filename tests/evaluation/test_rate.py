"""The interval against its defining equation and an exact count of its coverage."""

import math

import numpy as np
import pytest

from keras_jsigr.evaluation.rate import Rate

Z = 1.959963984540054
CASES = [
    (0, 1),
    (1, 1),
    (0, 10),
    (10, 10),
    (1, 10),
    (80, 100),
    (999, 1000),
    (6140, 9999),
]


@pytest.mark.parametrize(("correct", "total"), CASES)
def test_ends_solve_the_score_equation(correct, total):
    """Each end is where the observed share is 1.96 standard errors away."""
    rate = Rate(correct, total)
    for p in (rate.low, rate.high):
        if 1e-9 < p < 1 - 1e-9:
            z = abs(rate.accuracy - p) / math.sqrt(p * (1 - p) / total)
            assert z == pytest.approx(Z, rel=1e-9)
    assert 0 <= rate.low <= rate.accuracy <= rate.high <= 1


def test_known_values():
    """Worked out beforehand, to ten digits."""
    rate = Rate(80, 100)
    assert rate.low == pytest.approx(0.7111708344, abs=1e-9)
    assert rate.high == pytest.approx(0.8666330667, abs=1e-9)
    assert Rate(0, 10).high == pytest.approx(0.2775327999, abs=1e-9)


@pytest.mark.parametrize("p", [0.02, 0.3, 0.5, 0.9])
def test_coverage(p):
    """Binomial probabilities of the counts whose interval holds p: close to 95 %."""
    n = 200
    counts = np.arange(n + 1)
    log = [
        math.lgamma(n + 1)
        - math.lgamma(k + 1)
        - math.lgamma(n - k + 1)
        + k * math.log(p)
        + (n - k) * math.log(1 - p)
        for k in counts
    ]
    inside = [Rate(int(k), n).low <= p <= Rate(int(k), n).high for k in counts]
    assert 0.93 < np.exp(log)[inside].sum() < 0.98


@pytest.mark.parametrize(("correct", "total"), [(-1, 5), (6, 5), (0, 0)])
def test_impossible_counts(correct, total):
    with pytest.raises(ValueError, match="expected 0 <= correct"):
        Rate(correct, total)
