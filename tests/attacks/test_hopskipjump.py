"""HopSkipJump: the exact distance of linear models, by decisions alone."""

import numpy as np
import pytest
import tensorflow as tf

from keras_jsigr.attacks import HopSkipJump
from keras_jsigr.attacks.hopskipjump import (
    bisect,
    decision_gradient,
    geometric_step_search,
    other_examples,
)
from keras_jsigr.core.batching import chunked_sum, draws_at_once

RNG = np.random.default_rng(31)


D = 36


W = RNG.normal(size=(D, 3)).astype("float32")


X = RNG.uniform(0.4, 0.6, (12, D)).astype("float32")


# The biases make all three classes common.
BIAS = -np.mean(X @ W, axis=0)


def linear(x):
    flat = tf.reshape(tf.cast(x, tf.float32), [-1, D])
    return flat @ tf.constant(W) + tf.constant(BIAS)


def decided(x):
    """The decision alone, without any gradient."""
    return tf.stop_gradient(tf.one_hot(tf.argmax(linear(x), axis=-1), 3))


def decisions(x):
    return np.argmax(linear(x), axis=-1)


def exact(x, y, norm, free=slice(None)):
    """The distance to the nearest half space of another class; no range binds."""
    dual = 2 if norm == "l2" else 1
    z, result = linear(x).numpy(), []
    for b in range(len(x)):
        ways = [
            (z[b, y[b]] - z[b, c]) / np.linalg.norm((W[:, y[b]] - W[:, c])[free], dual)
            for c in range(3)
            if c != y[b]
        ]
        result.append(min(ways))
    return np.array(result)


def two(x):
    return linear(x)[:, :2]


def lengths(a, b, norm):
    delta = (a.astype("float64") - b).reshape(len(a), -1)
    return np.linalg.norm(delta, 2 if norm == "l2" else np.inf, axis=1)


@pytest.mark.parametrize(
    ("norm", "within", "targeted"),
    [("l2", 0.03, True), ("linf", 0.1, False)],
)
def test_exact_distance_of_two_classes(norm, within, targeted):
    y = np.argmax(two(X), axis=1)
    attack = HopSkipJump(norm=norm, queries=4000, targeted=targeted)
    x_adv = attack(two, X, 1 - y if targeted else y)
    z = two(X).numpy()
    w = np.linalg.norm(W[:, 0] - W[:, 1], 2 if norm == "l2" else 1)
    ratio = lengths(x_adv, X, norm) / (np.abs(z[:, 0] - z[:, 1]) / w)
    assert (np.argmax(two(x_adv), axis=1) == 1 - y).all()
    assert ratio.min() > 1 - 1e-4
    assert ratio.max() < 1 + within
    assert np.median(ratio) < 1 + within / 2


@pytest.mark.slow
def test_decisions_are_enough():
    """Three classes: the boundary it starts at need not be the nearest one."""
    for norm in ["l2", "linf"]:
        attack, y = HopSkipJump(norm=norm, queries=1000), decisions(X)
        x_adv = attack(linear, X, y)
        np.testing.assert_array_equal(attack(decided, X, y), x_adv)
        assert (decisions(x_adv) != y).all()
        ratio = lengths(x_adv, X, norm) / exact(X, y, norm)
        assert ratio.min() > 1 - 1e-4
        assert np.median(ratio) < 1.2
        # Misclassified already: nothing moves.
        np.testing.assert_array_equal(attack(linear, X, (y + 1) % 3), X)
        if norm == "l2":
            other = HopSkipJump(norm=norm, queries=1000, seed=1)(linear, X, y)
            assert (other != x_adv).any()


def test_targeted_starts_from_an_example_of_the_class():
    """The class to reach is a small corner that noise does not meet."""

    def corner(x):
        inside = tf.reduce_all(x > 0.9, axis=1)
        return tf.one_hot(tf.cast(inside, tf.int32), 2)

    x = np.full((3, D), 0.5, "float32")
    x[2] = 0.95
    attack = HopSkipJump(norm="linf", queries=300, targeted=True)
    x_adv = attack(corner, x, [1, 1, 1])
    assert (x_adv > 0.9).all()
    np.testing.assert_allclose(x_adv[:2], 0.9, atol=0.02)
    np.testing.assert_array_equal(x_adv[2], x[2])
    # Without such an example nothing is found: the inputs come back.
    with pytest.warns(RuntimeWarning, match=r"reach the classes \[1\]"):
        np.testing.assert_array_equal(attack(corner, x[:2], [1, 1]), x[:2])


def test_counts_its_queries():
    per_example = []

    def counted(x):
        z = linear(x)
        tf.py_function(lambda n: per_example.append(int(n)), [tf.shape(x)[0]], [])
        return z

    attack, y = HopSkipJump(queries=700), decisions(X)
    attack(counted, X, y)
    per_example.clear()
    attack(counted, X, y)
    # Every call asks about multiples of the examples still under attack.
    assert 0.8 * 700 < sum(per_example) / len(X) <= 700
    assert attack.passes == 700


@pytest.mark.slow
def test_radius():
    norm = "linf"
    y, free = decisions(X), HopSkipJump(norm=norm, queries=1500)
    closest = free(linear, X)
    distance = lengths(closest, X, norm)
    epsilon = float(np.median(distance))
    x_adv = free.at(epsilon)(linear, X)
    assert (lengths(x_adv, X, norm) <= epsilon + 1e-6).all()
    fooled = decisions(x_adv) != y
    assert fooled[distance < 0.97 * epsilon].all()
    assert not fooled[exact(X, y, norm) > epsilon].any()
    both = free(linear, X, epsilons=[epsilon, np.inf])
    assert (lengths(both[0], X, norm) <= epsilon + 1e-6).all()
    np.testing.assert_array_equal(both[1], closest)


def test_region():
    x, region = X.reshape(-1, 6, 6, 1), np.zeros((6, 6))
    region[:3] = 1
    x_adv = HopSkipJump(queries=2000)(linear, x, region=region)
    np.testing.assert_array_equal(x_adv[:, 3:], x[:, 3:])
    y = decisions(x)
    found = decisions(x_adv) != y
    assert found.mean() > 0.8
    # The exact distance when only the first half of the components may move.
    nearest = exact(x, y, "l2", free=slice(18))
    ratio = lengths(x_adv, x, "l2")[found] / nearest[found]
    assert ratio.min() > 1 - 1e-4
    assert np.median(ratio) < 1.05


def test_dtypes_and_range():
    def check(dtype, high):
        x = (high * X).astype(dtype)

        def model(x):
            return linear(tf.cast(x, tf.float32) / high)

        x_adv = HopSkipJump(queries=600, input_range=(0, high))(model, x)
        assert x_adv.dtype == dtype
        small, near = (t.astype("float64") / high for t in (x, x_adv))
        y = decisions(small)
        assert (decisions(near) != y).all()
        assert near.min() >= 0
        assert near.max() <= 1
        assert np.median(lengths(near, small, "l2") / exact(small, y, "l2")) < 1.2

    for dtype, high in [("float64", 255)]:
        check(dtype, high)


# ---- parts


def test_bisection_halves_the_doubt():
    def check(norm):
        origin = tf.constant(RNG.uniform(size=(50, 5)))
        x = tf.constant(RNG.uniform(size=(50, 5)))
        share = tf.constant(RNG.uniform(0.05, 0.95, 50))
        delta = x - origin
        order = 2 if norm == "l2" else np.inf
        reach = np.linalg.norm(delta, order, axis=1)

        def decide(points):
            lengths = tf.norm(points - origin, order, axis=1)
            return lengths > share * reach

        y = bisect(decide, origin, x, norm=norm, passes=12).numpy()
        assert decide(tf.constant(y)).numpy().all()
        lengths = np.linalg.norm(y - origin, order, axis=1) / reach
        assert (lengths - share.numpy() <= 2.0**-12 + 1e-12).all()
        if norm == "l2":
            cosine = np.sum((y - origin) * delta, 1) / np.linalg.norm(
                y - origin, axis=1
            )
            np.testing.assert_allclose(cosine / np.linalg.norm(delta, axis=1), 1)
        else:
            radius = (lengths * reach)[:, None]
            clipped = np.clip(x, origin - radius, origin + radius)
            np.testing.assert_allclose(y, clipped)

    for norm in ["l2", "linf"]:
        check(norm)


def test_estimated_normal_of_a_plane():
    """Independent errors: the angle shrinks with the root of the number of draws."""

    def check(norm):
        w = RNG.normal(size=8)
        w /= np.linalg.norm(w)
        x = tf.zeros((200, 8), tf.float64)

        def ask(points):
            return tf.linalg.matvec(points, w) > 0, points

        @tf.function(autograph=False)
        def estimate(count):
            radius = tf.fill([200], tf.constant(0.1, tf.float64))
            seed = tf.constant([1, 2])
            return decision_gradient(
                ask, x, radius=radius, count=count, norm=norm, seed=seed
            )

        def cosine(count):
            v = estimate(tf.constant(count)).numpy()
            return v @ w / np.linalg.norm(v, axis=1)

        few, many = (np.mean(1 - cosine(count)) for count in (100, 1600))
        assert many < 0.02
        # Sixteen times the draws, a sixteenth of the squared angle.
        assert few / many == pytest.approx(16, rel=0.25)

    for norm in ["l2", "linf"]:
        check(norm)


def test_normal_where_all_agree():
    x = tf.zeros((2, 3), tf.float64)
    sides = tf.constant([True, False])

    def ask(points):
        fools = tf.tile(sides, [tf.shape(points)[0] // 2])
        return fools, tf.maximum(points, 0.0)

    v = decision_gradient(
        ask,
        x,
        radius=tf.ones(2, tf.float64),
        count=tf.constant(500),
        norm="l2",
        seed=tf.constant([1, 2]),
    )
    assert (v[0] > 0).numpy().all()
    assert (v[1] < 0).numpy().all()


def test_draws_are_all_counted():
    seen = []

    def draw(first, size):
        seen.append((int(first), int(size)))
        return tf.cast(size, tf.float64)

    zero = tf.zeros((), tf.float64)
    total = chunked_sum(1000, draws_at_once(tf.constant(100)), draw, zero)
    assert float(total) == 1000
    assert seen[0] == (0, 5)
    assert sum(size for _, size in seen) == 1000
    assert float(chunked_sum(3, draws_at_once(tf.constant(0)), draw, zero)) == 3


def test_step_is_halved_until_it_fools():
    x, way = tf.zeros((3, 1)), tf.constant([[1.0], [-1.0], [1.0]])

    def decide(points):
        return (tf.abs(points[:, 0]) < 0.3) & (tf.range(3) < 2) & (points[:, 0] != 0)

    y, asked = geometric_step_search(
        decide, x, way, tf.constant([1.0, 0.1, 1.0]), input_range=(-2, 2), halvings=6
    )
    np.testing.assert_allclose(y[:, 0], [0.25, -0.1, 0.0])
    assert int(asked) == 6


def test_nearest_other_example():
    x = RNG.uniform(size=(20, 3)).astype("float32")
    classes, y = RNG.integers(0, 3, 20), RNG.integers(0, 4, 20)
    for targeted in (False, True):
        chosen, there = other_examples(
            tf.constant(x),
            tf.constant(x),
            tf.constant(classes),
            tf.constant(y),
            targeted=targeted,
        )
        for b in range(20):
            fits = np.flatnonzero((classes == y[b]) == targeted)
            assert there[b].numpy() == (len(fits) > 0)
            if len(fits):
                nearest = fits[np.argmin(np.linalg.norm(x[fits] - x[b], axis=1))]
                np.testing.assert_array_equal(chosen[b], x[nearest])


def test_refused():
    with pytest.raises(ValueError, match="Unknown `norm`: got 'l1'"):
        HopSkipJump(norm="l1")
    with pytest.raises(ValueError, match="`queries` is out of range"):
        HopSkipJump(queries=10)
