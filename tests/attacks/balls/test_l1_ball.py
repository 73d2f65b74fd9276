"""The exact projection against bisection and its optimality; samples; sparse steps."""

import numpy as np
import pytest
import tensorflow as tf

from keras_jsigr.attacks.balls.l1_ball import L1Ball, project_l1, sparse_sign

RNG = np.random.default_rng(12)


def oracle(delta, low, high, epsilon):
    """Soft thresholding by bisection, one example in float64; low <= 0 <= high."""

    def moved(shift):
        thinner = np.sign(delta) * np.maximum(np.abs(delta) - shift, 0)
        return np.clip(thinner, low, high)

    if np.abs(moved(0)).sum() <= epsilon:
        return moved(0)
    below, above = 0.0, np.abs(delta).max()
    for _ in range(200):
        middle = (below + above) / 2
        if np.abs(moved(middle)).sum() > epsilon:
            below = middle
        else:
            above = middle
    return moved(above)


@pytest.mark.parametrize("epsilon", [1e-3, 0.3, 2.0, 12.0, 1e3])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_projection(dtype, epsilon):
    origin = RNG.uniform(size=(40, 5, 6)).astype(dtype)
    origin[:, 0], origin[:, 1] = 0.0, 1.0
    scale = 10.0 ** RNG.uniform(-3, 1, (40, 1, 1))
    x = (origin + scale * RNG.normal(size=origin.shape)).astype(dtype)
    ball = L1Ball(tf.constant(origin), epsilon, (0.0, 1.0))
    actual = ball.project(tf.constant(x)).numpy()
    wide, centre = x.astype("float64"), origin.astype("float64")
    expected = [
        oracle(p - o, -o, 1 - o, epsilon) for p, o in zip(wide, centre, strict=True)
    ]
    np.testing.assert_allclose(actual, centre + expected, atol=1.5e-7)
    length = np.abs(actual.astype("float64") - centre).sum((1, 2))
    assert length.max() <= epsilon * (1 + 1e-12)
    assert actual.min() >= 0.0
    assert actual.max() <= 1.0


def test_no_other_point_is_nearer():
    """The variational inequality <p - x, q - p> >= 0 for points q of the set."""
    origin = tf.constant(RNG.uniform(size=(30, 20)))
    x = origin + tf.constant(RNG.normal(size=(30, 20)))
    ball = L1Ball(origin, 1.5, (0.0, 1.0))
    nearest = ball.project(x)
    for number in range(20):
        q = ball.sample(tf.constant([3, number]))
        products = tf.reduce_sum((nearest - x) * (q - nearest), axis=1)
        assert float(tf.reduce_min(products)) >= -1e-12


def test_many_components_stay_inside():
    """Thousands of roundings do not add up, in bytes neither."""
    for high, epsilon in ((1.0, 12.0), (255.0, 3000.0)):
        origin = RNG.uniform(0, high, (3, 32, 32, 3)).astype("float32")
        x = origin + RNG.normal(size=origin.shape).astype("float32") * high
        ball = L1Ball(tf.constant(origin), epsilon, (0.0, high))
        moved = ball.project(tf.constant(x)).numpy().astype("float64") - origin
        length = np.abs(moved).sum((1, 2, 3))
        assert length.max() <= epsilon + 1e-9
        # Each of the few hundred that move is rounded by half a unit or so.
        assert length.min() >= epsilon - 1e-4 * high


def test_inside_is_kept_and_the_region_holds():
    origin = tf.constant(RNG.uniform(0.3, 0.7, (4, 6)).astype("float32"))
    inside = origin + 0.02 * tf.sign(origin - 0.5)
    ball = L1Ball(origin, 0.2, (0.0, 1.0))
    np.testing.assert_array_equal(ball.project(inside), inside)
    np.testing.assert_array_equal(ball.project(origin), origin)
    region = tf.constant([[1.0, 0, 1, 0, 0, 1]] * 4)
    some = L1Ball(origin, 0.2, (0.0, 1.0), region)
    np.testing.assert_array_equal(some.dimensions, [3.0] * 4)
    gradient = tf.constant(RNG.normal(size=(4, 6)).astype("float32")) * region
    for point in (
        some.project(origin + 1.0),
        some.sample(tf.constant([0, 1])),
        origin + some.steepest(gradient),
    ):
        changed = np.abs(point - origin) > 0
        assert changed[:, [0, 2, 5]].any()
        assert not changed[:, [1, 3, 4]].any()


def test_samples_fill_the_ball():
    origin, n = tf.fill((4000, 3), 0.5), 4000
    ball = L1Ball(origin, 0.2, (0.0, 1.0))
    points = ((ball.sample(tf.constant([1, 2])) - origin) / 0.2).numpy()
    # The norm is the third root of a uniform variable: mean 3/4, variance 3/80.
    length = np.abs(points).sum(1)
    assert length.max() <= 1.0 + 1e-6
    assert abs(length.mean() - 0.75) < 5 * np.sqrt(3 / 80 / n)
    # Each magnitude follows Beta(1, 3): mean 1/4, second moment 1/10.
    assert np.abs(np.abs(points).mean(0) - 0.25).max() < 5 * np.sqrt(3 / 80 / n)
    assert np.abs(points.mean(0)).max() < 5 * np.sqrt(0.1 / n)
    again = ball.sample(tf.constant([1, 2]))
    np.testing.assert_array_equal((again - origin) / 0.2, points)


def test_sparse_steps():
    gradient = tf.constant([[4.0, -3.0, 2.0, 1.0], [0.0, 0.0, 0.0, 0.0], [1, 1, -1, 0]])
    step = sparse_sign(gradient, tf.constant([2.0, 2.0, 1.0])).numpy()
    expected = [[0.5, -0.5, 0, 0], [0, 0, 0, 0], [1 / 3, 1 / 3, -1 / 3, 0]]
    np.testing.assert_allclose(step, expected, atol=1e-7)
    everything = sparse_sign(gradient[:1], tf.constant([99.0]))
    np.testing.assert_allclose(everything, [[0.25, -0.25, 0.25, 0.25]])
    at_least_one = sparse_sign(gradient[:1], tf.constant([0.0]))
    np.testing.assert_allclose(at_least_one, [[1.0, 0, 0, 0]])


def test_plain_steps_move_a_twentieth():
    origin = tf.zeros((2, 10, 10, 1))
    ball = L1Ball(origin, 1.0, (0.0, 1.0))
    gradient = tf.constant(RNG.normal(size=(2, 10, 10, 1)), tf.float32)
    step = ball.steepest(gradient).numpy().reshape(2, -1)
    assert ((step != 0).sum(1) == 5).all()
    np.testing.assert_allclose(np.abs(step).sum(1), 1.0, rtol=1e-6)


def test_radii_without_limit_and_zero():
    delta = tf.constant(RNG.normal(size=(3, 7)))
    room = tf.abs(delta) * 0.5
    free = project_l1(delta, room, tf.constant(np.inf, tf.float64))
    np.testing.assert_allclose(free, 0.5 * delta)
    none = project_l1(delta, room, tf.constant(0.0, tf.float64))
    np.testing.assert_array_equal(none, tf.zeros_like(delta))


def test_compiled_for_any_batch():
    @tf.function(input_signature=[tf.TensorSpec((None, 4, 4, 1), tf.float32)])
    def project(x):
        return L1Ball(tf.zeros_like(x) + 0.5, 0.3, (0.0, 1.0)).project(x)

    for n in (0, 1, 5):
        x = tf.constant(RNG.uniform(size=(n, 4, 4, 1)).astype("float32"))
        eager = L1Ball(tf.zeros_like(x) + 0.5, 0.3, (0.0, 1.0)).project(x)
        np.testing.assert_allclose(project(x), eager, atol=1e-7)
