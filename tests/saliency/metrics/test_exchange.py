"""Deletion and insertion."""

import numpy as np
import pytest
import scipy.integrate
import tensorflow as tf

from keras_jsigr.saliency import baseline
from keras_jsigr.saliency.metrics import (
    control_map,
    deletion,
    exchange_curve,
    insertion,
)
from keras_jsigr.saliency.metrics.exchange_curve import exchange_counts


def total(x):
    return tf.reduce_sum(x, axis=list(range(1, x.shape.rank)))


@pytest.fixture
def ramp():
    """1/10, ..., 10/10 in another order for each example."""
    rng = np.random.default_rng(0)
    rows = [rng.permutation(np.arange(1, 11)) / 10 for _ in range(4)]
    return np.array(rows, "float32")


def test_areas_of_a_sum_are_known(ramp):
    # Of n values k/n the sum falls as n (n + 1) / 2n - k (2n + 1 - k) / 2n: as the map
    # is the input itself, no order has a smaller deletion or a larger insertion.
    n = 10
    k = np.arange(n + 1)
    curve = (n * (n + 1) - k * (2 * n + 1 - k)) / (2 * n)
    area = scipy.integrate.trapezoid(curve, dx=1 / n)
    settings = {"steps": n, "baseline": "zero"}
    found = deletion(total, ramp, ramp, **settings)
    np.testing.assert_allclose(found, np.full(4, area), rtol=1e-6)
    put_in = insertion(total, ramp, ramp, **settings)
    np.testing.assert_allclose(put_in, np.full(4, curve[0] - area), rtol=1e-6)
    # Backwards, the two change roles.
    np.testing.assert_allclose(deletion(total, ramp, -ramp, **settings), put_in, 1e-6)


def test_a_random_order_is_between(ramp):
    x = np.repeat(ramp, 100, axis=0)
    order = control_map(x, "random", seed=(3, 4))
    found = deletion(total, x, order, steps=10, baseline="zero").numpy()
    assert abs(found.mean() - 2.75) < 4 * found.std() / 20


@pytest.mark.parametrize("steps", [1, 3, 28])
def test_curves_are_those_of_a_loop(rng, steps):
    x = rng.random((3, 6, 5, 2), dtype=np.float32)
    maps = rng.random((3, 6, 5), dtype=np.float32)
    w = rng.normal(size=60).astype("float32")

    def score(x):
        return tf.tanh(tf.linalg.matvec(tf.reshape(x, (-1, 60)), w))

    end = baseline(x, "blur").numpy()
    expected = np.zeros((3, steps + 1))
    for i in range(3):
        order = np.argsort(-maps[i].ravel())
        for k in range(steps + 1):
            point = x[i].copy().reshape(30, 2)
            chosen = order[: int(np.floor(30 * k / steps + 0.5))]
            point[chosen] = end[i].reshape(30, 2)[chosen]
            expected[i, k] = np.tanh(point.ravel() @ w)
    found = exchange_curve(score, x, end, maps, steps=steps)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    area = scipy.integrate.trapezoid(expected, dx=1 / steps, axis=1)
    np.testing.assert_allclose(deletion(score, x, maps, steps=steps), area, atol=1e-5)


@pytest.mark.parametrize(("n", "steps"), [(10, 3), (33_000, 33_000), (400**2, 400**2)])
def test_counts_of_many_pixels_and_steps(n, steps):
    counts = exchange_counts(n, steps).numpy()
    np.testing.assert_array_equal(
        counts, np.floor(n * np.arange(steps + 1) / steps + 0.5)
    )


@pytest.mark.parametrize("kind", ["blur", "mean", "zero"])
def test_insertion_starts_where_deletion_ends(images, kind):
    maps = control_map(images, "intensity")
    ends = []
    for metric in (deletion, insertion):
        seen = []

        def score(x, seen=seen):
            seen.append(x.numpy())
            return total(x)

        metric(score, images, maps, steps=2, baseline=kind, low=0.5)
        assert len(seen) == 3
        ends.append((seen[0], seen[-1]))
    np.testing.assert_array_equal(ends[0][0], images)
    np.testing.assert_array_equal(ends[0][1], baseline(images, kind, low=0.5))
    np.testing.assert_array_equal(ends[0], ends[1][::-1])


def test_compiles_for_any_batch_size(ramp):
    @tf.function(input_signature=[tf.TensorSpec((None, 10), tf.float32)])
    def area(x):
        return deletion(total, x, x, steps=5, baseline="zero")

    whole = area(ramp).numpy()
    np.testing.assert_allclose(whole[1:3], area(ramp[1:3]), rtol=1e-6)
    assert area(ramp[:0]).shape == (0,)
    assert area.experimental_get_tracing_count() == 1


@pytest.mark.parametrize("steps", [0, 11, 2.0])
def test_steps_are_checked(ramp, steps):
    with pytest.raises(ValueError, match="integer from 1 to 10"):
        deletion(total, ramp, ramp, steps=steps)
