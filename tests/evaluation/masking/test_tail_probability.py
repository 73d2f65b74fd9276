"""The tests of counts against SciPy, and how rarely they accuse."""

import numpy as np
import pytest

from keras_jsigr.evaluation.masking.tail_probability import (
    SIGNIFICANCE,
    clearly_more,
    clearly_moved,
    tail_probability,
)

stats = pytest.importorskip("scipy.stats")


@pytest.mark.parametrize("total", [1, 7, 100, 1000])
@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.9])
def test_against_scipy(total, share):
    for count in {0, 1, total // 10, total // 2, total}:
        expected = stats.binom.sf(count - 1, total, share)
        np.testing.assert_allclose(
            tail_probability(count, total, share), expected, rtol=1e-9, atol=1e-300
        )


@pytest.mark.parametrize("total", [20, 100, 500, 1000])
@pytest.mark.parametrize("share", [0.01, 0.02, 0.05])
def test_the_edge_is_rarely_accused_and_four_times_it_found(total, share):
    accused = [clearly_more(count, total, share) for count in range(total + 1)]
    first = accused.index(True)
    assert all(accused[first:])
    assert stats.binom.sf(first - 1, total, share) < SIGNIFICANCE
    if total * share >= 10:
        assert stats.binom.sf(first - 1, total, 4 * share) > 0.95


def test_sign_test():
    assert clearly_moved(10, 0, 1000, 0.0)  # One in 1024.
    assert not clearly_moved(9, 0, 1000, 0.0)
    assert not clearly_moved(10, 0, 100, 0.1)  # No more than is tolerated.
    assert not clearly_moved(0, 50, 100, 0.0)
    assert not clearly_moved(0, 0, 100, 0.0)
