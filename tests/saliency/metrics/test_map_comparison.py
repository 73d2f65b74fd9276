"""Top-k intersection, rank correlation, SSIM and agreement of two maps."""

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

from keras_jsigr.saliency.metrics import (
    agreement,
    rank_correlation,
    ssim,
    top_k_intersection,
)
from keras_jsigr.saliency.metrics.rank_correlation import average_ranks

PAIRS = [rank_correlation, top_k_intersection, ssim]


@pytest.fixture
def maps(rng):
    return rng.random((6, 12, 13), dtype=np.float32)


@pytest.fixture
def others(rng, maps):
    return (maps + rng.random(maps.shape)).astype("float32")


@pytest.mark.parametrize("ties", [False, True])
def test_rank_correlation_is_that_of_scipy(maps, others, ties):
    if ties:
        maps, others = np.round(4 * maps), np.round(3 * others)
    expected = [
        scipy.stats.spearmanr(a.ravel(), b.ravel()).statistic
        for a, b in zip(maps, others, strict=True)
    ]
    np.testing.assert_allclose(rank_correlation(maps, others), expected, atol=1e-6)


def test_average_ranks_are_those_of_scipy(rng):
    rows = rng.integers(-3, 4, (5, 40)).astype("float32")
    rows[0, :2] = 0.0, -0.0
    expected = scipy.stats.rankdata(rows, axis=1)
    np.testing.assert_array_equal(average_ranks(rows), expected)


def test_rank_correlation_of_large_maps_is_exact(rng):
    order = rng.permutation(224 * 224).astype("float32")[None]
    assert float(rank_correlation(order, 2 * order)[0]) == 1.0
    assert float(rank_correlation(order, -order)[0]) == -1.0


def test_rank_correlation_sees_the_order_alone(maps, others):
    np.testing.assert_array_equal(
        rank_correlation(maps, others), rank_correlation(np.exp(3 * maps), others)
    )


def test_top_k_counts_shared_pixels(maps, others):
    k = round(0.1 * 156)
    tops = [[set(np.argsort(-m.ravel())[:k]) for m in each] for each in (maps, others)]
    expected = [len(a & b) / k for a, b in zip(*tops, strict=True)]
    np.testing.assert_allclose(top_k_intersection(maps, others), expected, atol=1e-7)


def test_top_k_of_unrelated_maps_is_the_share(rng):
    a, b = rng.random((2, 400, 200)).astype("float32")
    found = top_k_intersection(a, b, top=0.2).numpy()
    assert abs(found.mean() - 0.2) < 4 * found.std() / 20


def test_top_k_of_ties_takes_the_first():
    a = tf.constant([[1.0, 1.0, 1.0, 0.0]])
    b = tf.constant([[1.0, 0.5, 0.0, 0.0]])
    np.testing.assert_array_equal(top_k_intersection(a, b, top=0.5), [1.0])


def test_ssim_of_identical_maps_is_one(maps):
    np.testing.assert_allclose(ssim(maps, 7.0 * maps), np.ones(6), atol=1e-6)


def test_ssim_is_that_of_a_single_window(rng):
    # Maps of 5 pixels have one window: a weighted mean, variance and covariance.
    a, b = rng.random((2, 3, 5, 5)).astype("float32")
    a, b = (m / m.max((1, 2), keepdims=True) for m in (a, b))
    line = np.exp(-((np.arange(5) - 2.0) ** 2) / (2 * 1.5**2))
    window = np.outer(line, line) / line.sum() ** 2

    def mean(values):
        return (window * values).sum((1, 2))

    va, vb = mean(a * a) - mean(a) ** 2, mean(b * b) - mean(b) ** 2
    covariance = mean(a * b) - mean(a) * mean(b)
    c1, c2 = 0.01**2, 0.03**2
    expected = (2 * mean(a) * mean(b) + c1) / (mean(a) ** 2 + mean(b) ** 2 + c1)
    expected *= (2 * covariance + c2) / (va + vb + c2)
    np.testing.assert_allclose(ssim(a, b), expected, atol=1e-5)


def test_agreement_is_measured_three_ways(maps, others):
    found = agreement(maps, others)
    flat = maps.reshape(6, -1), others.reshape(6, -1)
    cosine = [
        a @ b / np.linalg.norm(a) / np.linalg.norm(b)
        for a, b in zip(*flat, strict=True)
    ]
    np.testing.assert_allclose(found.cosine, cosine, atol=1e-6)
    np.testing.assert_array_equal(found.rank, rank_correlation(maps, others))
    halves = [m > np.median(m, axis=1, keepdims=True) for m in flat]
    union = (halves[0] | halves[1]).sum(1)
    expected = (halves[0] & halves[1]).sum(1) / union
    np.testing.assert_allclose(found.overlap, expected, atol=1e-6)


def test_opposite_maps_disagree():
    maps = np.arange(10, dtype="float32")[None]
    found = agreement(maps - 4.5, 4.5 - maps)
    assert [float(part[0]) for part in found] == pytest.approx([-1.0, -1.0, 0.0])


@pytest.mark.parametrize("value", [0.0, 0.3])
def test_constant_maps_agree_with_nothing(maps, value):
    flat = np.full_like(maps, value)
    for a, b in ((flat, maps), (maps, flat), (flat, flat)):
        np.testing.assert_array_equal(rank_correlation(a, b), np.zeros(6))
        np.testing.assert_array_equal(top_k_intersection(a, b), np.zeros(6))
    zero = np.zeros_like(maps)
    np.testing.assert_array_equal(agreement(zero, maps).cosine, np.zeros(6))
    np.testing.assert_array_equal(ssim(zero, zero), np.ones(6))


@pytest.mark.parametrize("metric", PAIRS)
def test_examples_do_not_depend_on_each_other(metric, maps, others):
    whole = metric(maps, others).numpy()
    assert whole.shape == (6,)
    assert whole.dtype == np.float32
    single = [metric(maps[i : i + 1], others[i : i + 1]).numpy() for i in range(6)]
    np.testing.assert_allclose(whole, np.concatenate(single), atol=1e-6)


@pytest.mark.parametrize("metric", PAIRS)
def test_compiles_for_any_batch_size(metric, maps, others):
    spec = tf.TensorSpec((None, 12, 13), tf.float32)
    compiled = tf.function(metric, input_signature=[spec, spec])
    np.testing.assert_allclose(compiled(maps, others), metric(maps, others), atol=1e-6)
    assert compiled(maps[:0], others[:0]).shape == (0,)
    assert compiled.experimental_get_tracing_count() == 1


@pytest.mark.parametrize("metric", [*PAIRS, agreement])
def test_different_shapes_are_refused(metric, maps):
    with pytest.raises(ValueError, match="expected the same shape"):
        metric(maps, maps[:, :5])


def test_bad_settings_are_refused(maps):
    with pytest.raises(ValueError, match="above 0 and below 1"):
        top_k_intersection(maps, maps, top=1.0)
    with pytest.raises(ValueError, match="with a batch"):
        rank_correlation(maps[0, 0], maps[0, 0])
