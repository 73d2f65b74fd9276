"""Carlini and Wagner's attack where the closest point is known, and its parts."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import optimize

from keras_jsigr.attacks.minimum_norm.carlini_wagner import CarliniWagner
from keras_jsigr.attacks.minimum_norm.constant_search import (
    constant_next,
    constant_start,
)
from keras_jsigr.attacks.minimum_norm.tanh_box import box_slope, from_box, to_box
from keras_jsigr.core.adam import adam_start, adam_step

RNG = np.random.default_rng(5)
W = RNG.normal(size=(16, 4)).astype("float32")
X = RNG.uniform(0.35, 0.65, (12, 16)).astype("float32")
QUICK = {"steps": 400, "initial_constant": 0.1}


def linear(x):
    return tf.reshape(x, [-1, 16]) @ tf.constant(W, x.dtype)


def ways(z, y, confidence=0.0):
    """Length of the shortest way to each class of a linear model, from class y."""
    w = W[:, None, :] - W[:, y][:, :, None]
    gap = z[range(12), y][:, None] + confidence - z
    with np.errstate(invalid="ignore", divide="ignore"):
        lengths = gap / np.linalg.norm(w, axis=0)
    lengths[range(12), y] = np.inf
    return lengths


def distance(x_adv, x):
    return np.linalg.norm((x_adv - x).reshape(len(x), -1), axis=1)


@pytest.mark.parametrize(
    ("shape", "high"), [((12, 4, 4, 1), 1.0), ((12, 2, 2, 4), 255.0), ((12, 16), 7.0)]
)
def test_linear_model(shape, high):
    """Grey and colour images and vectors, in two ranges."""
    z = X @ W
    y = z.argmax(1)
    x = high * X.reshape(shape)
    attack = CarliniWagner(input_range=(0.0, high), **QUICK)
    x_adv = attack(lambda x: linear(x / high), x, y)
    assert (np.argmax(linear(x_adv / high), axis=1) != y).all()
    ratio = distance(x_adv / high, X.reshape(shape)) / ways(z, y).min(1)
    assert (ratio >= 1 - 1e-4).all()
    assert (ratio <= 1.02).all()


def test_confidence():
    z = X @ W
    y = z.argmax(1)
    x_adv = CarliniWagner(confidence=1.0, **QUICK)(linear, X, y)
    reached = x_adv @ W
    own = reached[range(12), y].copy()
    reached[range(12), y] = -np.inf
    assert (reached.max(1) - own >= 1.0 - 1e-5).all()
    ratio = distance(x_adv, X) / ways(z, y, 1.0).min(1)
    assert (ratio >= 1 - 1e-4).all()
    assert (ratio <= 1.02).all()


def test_targeted():
    """The class to reach has to beat all others: a problem in a cone of planes."""
    z = X @ W
    y, goal = z.argmax(1), np.argsort(z, axis=1)[:, 2]
    x_adv = CarliniWagner(targeted=True, **QUICK)(linear, X, goal)
    np.testing.assert_array_equal((x_adv @ W).argmax(1), goal)
    best = []
    for row, k in zip(X.astype("float64"), goal, strict=True):
        planes = np.delete(W[:, [k]] - W, k, axis=1).T.astype("float64")
        solved = optimize.minimize(
            lambda d: d @ d,
            np.zeros(16),
            jac=lambda d: 2 * d,
            constraints=optimize.LinearConstraint(planes, -planes @ row),
            method="SLSQP",
            options={"ftol": 1e-12},
        )
        best.append(np.linalg.norm(solved.x))
    ratio = distance(x_adv, X) / best
    assert (ratio >= 1 - 1e-4).all()
    assert (ratio <= 1.02).all()
    already = CarliniWagner(targeted=True, **QUICK)(linear, X, y)
    np.testing.assert_array_equal(already, X)


def test_sphere():
    """Class 0 inside a sphere around the middle: straight out is closest."""

    def sphere(x):
        r2 = tf.reduce_sum((x - 0.5) ** 2, axis=1, keepdims=True)
        return 9.0 * tf.concat([0.6**2 - r2, tf.zeros_like(r2)], axis=1)

    x_adv = CarliniWagner(**QUICK)(sphere, X, np.zeros(12, int))
    best = 0.6 - np.linalg.norm(X - 0.5, axis=1)
    ratio = distance(x_adv, X) / best
    assert (ratio >= 1 - 1e-4).all()
    assert (ratio <= 1.02).all()


@pytest.mark.slow
def test_early_abort_is_nearly_as_good():
    w = RNG.normal(size=(16, 16)).astype("float32")

    def network(x):
        return tf.tanh((x - 0.5) @ tf.constant(w)) @ tf.constant(W)

    y = np.argmax(network(X), axis=1)

    def found(**settings):
        x_adv = CarliniWagner(**QUICK, **settings)(network, X, y)
        assert (np.argmax(network(x_adv), axis=1) != y).all()
        return distance(x_adv, X)

    ratio = found() / found(abort_early=False)
    assert np.median(ratio) < 1.01


def test_adam_is_keras_adam():
    rng = np.random.default_rng(8)
    start, gradients = rng.normal(size=(3, 4)), rng.normal(size=(30, 3, 4))
    variable = keras.Variable(start, dtype="float32")
    optimizer = keras.optimizers.Adam(0.05, epsilon=1e-8)
    state = adam_start(tf.constant(start, tf.float32))
    for step, gradient in enumerate(gradients):
        gradient = tf.constant(gradient, tf.float32)
        optimizer.apply([gradient], [variable])
        state = adam_step(state, gradient, tf.constant(step), 0.05)
    np.testing.assert_allclose(state.w, variable.value, atol=1e-5)


def test_constants_close_in():
    """Where a constant succeeds from a threshold on, the search finds that."""
    threshold = np.array([1e-5, 0.02, 3.0, 4e4])
    search = constant_start(tf.zeros(4, tf.float64), 1e-3)
    for _ in range(60):
        search = constant_next(search, search.constant >= threshold)
    np.testing.assert_allclose(search.high, threshold, rtol=1e-6)
    never = constant_start(tf.zeros(1), 1.0)
    for _ in range(40):
        never = constant_next(never, tf.constant([False]))
    assert never.constant == 1e10


def test_box():
    x = tf.constant([-1.0, -0.3, 0.5, 3.0], tf.float64)
    w = from_box(x, (-1.0, 3.0))
    assert np.isfinite(w).all()
    np.testing.assert_allclose(to_box(w, (-1.0, 3.0)), x, atol=4e-6)
    far = to_box(tf.constant([-99.0, 99.0]), (-1.0, 3.0))
    np.testing.assert_array_equal(far, [-1.0, 3.0])
    with tf.GradientTape() as tape:
        tape.watch(w)
        point = to_box(w, (-1.0, 3.0))
    np.testing.assert_allclose(box_slope(w, (-1.0, 3.0)), tape.gradient(point, w))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"norm": "linf"}, "`norm`"),
        ({"searches": 0}, "`searches` is out of range"),
        ({"confidence": -1.0}, "`confidence` is out of range"),
        ({"learning_rate": 0.0}, "`learning_rate` is out of range"),
        ({"initial_constant": 0.0}, "`initial_constant` is out of range"),
        ({"abort_early": 1}, "`abort_early`"),
    ],
)
def test_refused_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        CarliniWagner(**settings)


def test_targets_are_needed():
    with pytest.raises(ValueError, match="needs `y`"):
        CarliniWagner(targeted=True)(linear, X)
