"""The rule alone: its fixed point, its bounds, and what it does with a plant."""

import math

import numpy as np
import pytest

from keras_jsigr.training.penalty_rule import (
    HIGHEST,
    LOWEST,
    clearly_trained,
    next_factor,
    standard_error,
)

UNITS = {"drop": 0.02, "error": 0.008}


def test_monotone_in_the_slack():
    slacks = np.linspace(-0.2, 0.2, 81)
    factors = [next_factor(0.5, s, s, **UNITS) for s in slacks]
    assert np.all(np.diff(factors) >= 0)
    inside = np.abs(slacks) < 0.028
    assert np.all(np.diff(np.array(factors)[inside]) > 0)
    assert min(factors) == pytest.approx(0.5 / 4)
    assert max(factors) == pytest.approx(0.5 * 2)


@pytest.mark.parametrize("factor", [LOWEST, 0.3, 1.0, HIGHEST])
@pytest.mark.parametrize("last", [None, -0.05, 0.0, 0.05])
def test_no_slack_is_a_fixed_point(factor, last):
    assert next_factor(factor, 0.0, last, **UNITS) == pytest.approx(factor)


def test_bounded():
    low = high = 1.0
    for _ in range(40):
        low = next_factor(low, -1.0, -1.0, **UNITS)
        high = next_factor(high, 1.0, 1.0, **UNITS)
    assert (low, high) == (LOWEST, HIGHEST)


def test_formula():
    expected = 0.7 * 2.0 ** (-0.014 / 0.028)
    assert next_factor(0.7, -0.014, -0.014, **UNITS) == pytest.approx(expected)


def test_it_waits_while_the_violation_closes():
    assert next_factor(0.5, -0.05, -0.09, **UNITS) == 0.5
    assert next_factor(0.5, -0.05, None, **UNITS) == 0.5
    assert next_factor(0.5, -0.05, -0.055, **UNITS) < 0.5  # within the noise
    assert next_factor(0.5, 0.01, None, **UNITS) > 0.5


def test_no_drop_and_perfect_accuracy_are_defined():
    error = standard_error(1.0, 50)
    assert 0 < error < 0.05
    assert math.isfinite(next_factor(1.0, 0.0, None, drop=0.0, error=error))


def trained(drop, power, start, *, lag, noise, decay, examples=2000, epochs=60):
    """Run the rule on `accuracy = 0.87 - 0.05 f^power`, >= 0.1, reached with a lag.

    The learning rate costs `decay` at first and nothing at the end.
    """
    rng = np.random.default_rng(0)
    factor, last, lost = start, None, 0.0
    slacks, factors = [], []
    for epoch in range(epochs):
        lost += (1.0 - lag) * (0.05 * factor**power - lost)
        rate = 0.5 + 0.5 * math.cos(math.pi * epoch / epochs)
        accuracy = max(0.87 - lost - decay * rate, 0.1)
        seen = accuracy + noise * rng.standard_normal()
        slack = seen - (0.87 - drop)
        error = standard_error(seen, examples)
        factor = next_factor(factor, slack, last, drop=drop, error=error)
        last = slack
        slacks.append(accuracy - (0.87 - drop))
        factors.append(factor)
    return np.array(slacks), np.array(factors)


@pytest.mark.parametrize("start", [0.02, 1.0, 50.0])
@pytest.mark.parametrize("power", [0.4, 0.7, 1.0])
@pytest.mark.parametrize("drop", [0.01, 0.02, 0.05])
def test_converges_on_a_plant(drop, power, start):
    slacks, factors = trained(drop, power, start, lag=0.3, noise=0.0, decay=0.0)
    assert np.abs(slacks[-10:]).max() < 0.1 * drop
    assert factors[-1] == pytest.approx((drop / 0.05) ** (1 / power), rel=0.25)


@pytest.mark.parametrize("drop", [0.01, 0.02, 0.05])
def test_noise_is_averaged(drop):
    """The accuracy itself strays less than its measurement."""
    slacks, _ = trained(drop, 0.7, 1.0, lag=0.3, noise=0.006, decay=0.0, epochs=400)
    assert abs(slacks[40:].mean()) < 0.1 * drop
    assert slacks[40:].std() < 0.006


def test_ends_feasible_after_a_learning_rate_decay():
    slacks, _ = trained(0.02, 0.7, 1.0, lag=0.3, noise=0.0, decay=0.02, epochs=15)
    assert 0.0 <= slacks[-1] < 0.01


def test_standard_error():
    rng = np.random.default_rng(0)
    accuracies = rng.binomial(2000, 0.85, 4000) / 2000
    assert standard_error(0.85, 2000) == pytest.approx(accuracies.std(), rel=0.05)
    assert standard_error(0.0, 0) > 0


@pytest.mark.parametrize(
    ("accuracy", "examples", "classes", "trained"),
    [
        (0.15, 2000, 10, False),
        (0.87, 2000, 10, True),
        (0.65, 20, 2, False),  # 13 of 20 heads
        (0.80, 500, 2, True),
        (0.30, 5000, 1000, True),
        (0.001, 5000, 1000, False),
    ],
)
def test_clearly_trained(accuracy, examples, classes, trained):
    assert clearly_trained(accuracy, examples, classes) is trained
