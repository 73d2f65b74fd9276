"""FAB finds the closest point where that is known in closed form."""

import numpy as np
import pytest
import tensorflow as tf

from keras_jsigr.attacks.balls.ball import BALLS
from keras_jsigr.attacks.minimum_norm.boundary import Boundary
from keras_jsigr.attacks.minimum_norm.fab import FAB
from keras_jsigr.attacks.minimum_norm.fab_step import fab_step

NORMS = [norm for norm in ("linf", "l2", "l1") if norm in BALLS]
ORDERS = {"linf": np.inf, "l2": 2, "l1": 1}
RNG = np.random.default_rng(0)
W, B = RNG.normal(size=(12, 4)), 0.3 * RNG.normal(size=4)


def linear(x):
    return x @ tf.constant(W, x.dtype) + tf.constant(B, x.dtype)


def size(delta, norm):
    return np.linalg.norm(delta, ORDERS[norm], axis=-1)


def shortest(x, w, gap, norm):
    """The least length within the box, by bisection of its one unknown."""
    towards = -np.sign(w) * np.sign(gap)
    room, a = np.where(towards > 0, 1 - x, x), np.abs(w)
    if a @ room < abs(gap):
        return np.inf
    if norm == "l1":
        length, rest = 0.0, abs(gap)
        for i in np.argsort(-a):
            step = min(room[i], rest / a[i])
            length, rest = length + step, rest - a[i] * step
        return length
    speed = np.ones_like(a) if norm == "linf" else a
    low, high = 0.0, 1e3
    for _ in range(200):
        t = (low + high) / 2
        low, high = (
            (low, t) if a @ np.minimum(room, t * speed) >= abs(gap) else (t, high)
        )
    return size(np.minimum(room, high * speed), norm)


def exact(x, y, norm):
    z, best = x @ W + B, []
    for row, label, logits in zip(x, y, z, strict=True):
        others = [k for k in range(4) if k != label]
        best.append(
            min(
                shortest(row, W[:, k] - W[:, label], logits[k] - logits[label], norm)
                for k in others
            )
        )
    return np.array(best)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("classes", [None, 3])
def test_linear_model_within_the_box(norm, classes):
    x = RNG.uniform(size=(20, 12)).astype("float32")
    # Inputs at the very ends leave no room in half of the directions.
    x[:5] = np.round(x[:5])
    y = np.argmax(linear(x), axis=1)
    x_adv = FAB(norm=norm, steps=20, target_classes=classes)(linear, x, y)
    assert (np.argmax(linear(x_adv), axis=1) != y).all()
    assert (x_adv >= 0).all()
    assert (x_adv <= 1).all()
    distance = size(x_adv.astype("float64") - x, norm)
    best = exact(x.astype("float64"), y, norm)
    assert (distance >= best - 1e-6).all()
    np.testing.assert_allclose(distance, best, atol=1e-4 * (6 if norm == "l1" else 1))


@pytest.mark.parametrize("norm", NORMS)
def test_inside_a_sphere(norm):
    """Class 0 inside a sphere: the way out is known in every norm."""
    radius, x = 1.3, RNG.normal(size=(16, 6))
    x *= 0.9 / size(x, "l2")[:, None]

    def sphere(x):
        r2 = tf.reduce_sum(x**2, axis=1, keepdims=True)
        return tf.concat([radius**2 - r2, tf.zeros_like(r2)], axis=1)

    d, r2 = np.abs(x), (x**2).sum(1)
    best = {
        "l2": radius - np.sqrt(r2),
        # sum (d_i + t)^2 = radius^2
        "linf": (-d.sum(1) + np.sqrt(d.sum(1) ** 2 + 6 * (radius**2 - r2))) / 6,
        "l1": np.sqrt(radius**2 - r2 + d.max(1) ** 2) - d.max(1),
    }[norm]
    attack = FAB(norm=norm, steps=40, input_range=(-3.0, 3.0))
    distance = size(attack(sphere, x, np.zeros(16, int)) - x, norm)
    assert (distance >= best - 1e-6).all()
    np.testing.assert_allclose(distance, best, rtol=2e-3)


def two_walls(x):
    """Right of the middle a wall at 0.3; left one at 0.1, without slope before it."""
    d = x[:, :1] - 0.5
    right, left = d - 0.3, 10.0 * tf.nn.relu(-d - 0.05) - 0.5
    z = tf.where(d > -0.05, right, left)
    return tf.concat([tf.zeros_like(z), z], axis=1)


@pytest.mark.slow
def test_restarts_find_what_one_start_misses():
    """From x itself only the wall at 0.3 is seen; half of the random starts, at half
    of that distance, see the other."""
    x, y = np.full((16, 1), 0.5, "float32"), np.zeros(16, int)
    found = []
    for seed in (0, 1):
        attack = FAB(steps=10, restarts=2, seed=seed)
        found.append(size(attack(two_walls, x, y) - x, "linf"))
        near = np.abs(found[-1] - 0.1) < 1e-4
        np.testing.assert_allclose(found[-1][~near], 0.3, atol=1e-4)
        assert 0 < near.sum() < 16
    assert (found[0] != found[1]).any()


@pytest.mark.slow
def test_never_farther_with_more_work():
    w1, w2 = RNG.normal(size=(20, 16)), RNG.normal(size=(16, 5))
    x = RNG.uniform(size=(12, 20))

    def network(x):
        return tf.tanh(x @ tf.constant(w1)) @ tf.constant(w2)

    y = np.argmax(network(x), 1)

    def distance(**settings):
        # Without the final search, which starts from another point after more steps.
        x_adv = FAB(search_passes=0, **settings)(network, x, y)
        assert (np.argmax(network(x_adv), 1) != y).all()
        return size(x_adv - x, "linf")

    few, more = distance(steps=3), distance(steps=15)
    assert (more <= few + 1e-7).all()
    assert (more < few - 1e-5).any()
    each = distance(steps=15, target_classes=4)
    assert np.median(each / more) < 1.01


@pytest.mark.parametrize("norm", NORMS)
def test_step_in_numpy(norm):
    """The mixture of both projections, without the box."""
    rng = np.random.default_rng(7)
    x, origin, w = (rng.normal(size=(5, 4)) for _ in range(3))
    gap = rng.normal(size=5)
    plane = Boundary(tf.constant(w), tf.constant(gap), tf.ones(5, tf.bool))
    settings = {"alpha_max": 0.25, "eta": 1.1}
    result = fab_step(
        tf.constant(x), tf.constant(origin), plane, (-99.0, 99.0), norm, **settings
    )

    def way(value):
        if norm == "l2":
            return -value[:, None] * w / (w**2).sum(1, keepdims=True)
        if norm == "linf":
            return -value[:, None] * np.sign(w) / np.abs(w).sum(1, keepdims=True)
        first = np.abs(w) == np.abs(w).max(1, keepdims=True)
        return np.where(first, -value[:, None] / w, 0.0)

    d, d_0 = way(gap), way(gap + (w * (origin - x)).sum(1))
    a = np.minimum(size(d, norm) / (size(d, norm) + size(d_0, norm)), 0.25)[:, None]
    expected = (1 - a) * (x + 1.1 * d) + a * (origin + 1.1 * d_0)
    np.testing.assert_allclose(result, expected, atol=1e-9)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"alpha_max": 1.5}, ValueError, "`alpha_max` is out of range: got 1.5"),
        ({"eta": 0.9}, ValueError, "`eta` is out of range"),
        ({"beta": 1.0}, ValueError, "`beta` is out of range: got 1"),
        ({"beta": 0}, ValueError, "`beta` is out of range"),
        ({"target_classes": 0}, ValueError, "`target_classes` is out of range"),
        ({"restarts": 1.5}, TypeError, "`restarts` is not an integer"),
        ({"targeted": True}, ValueError, "has no targeted form"),
    ],
)
def test_refused_settings(settings, error, message):
    with pytest.raises(error, match=message):
        FAB(**settings)
