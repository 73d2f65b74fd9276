"""Results never leave the ball or the range, in any norm, dtype and unit."""

import numpy as np
import pytest
import tensorflow as tf

from keras_jsigr.attacks import FGSM, MIFGSM, PGD
from keras_jsigr.attacks.balls.ball import L2Ball, LinfBall
from keras_jsigr.attacks.balls.normalize import l2_norm, mean_normalize, safe_normalize
from keras_jsigr.attacks.calls.inside import range_slack
from keras_jsigr.attacks.search.rounding import round_towards

RNG = np.random.default_rng(3)
W = RNG.normal(size=(40, 3))
METHODS = {
    "fgsm": FGSM,
    "fgsm-rs": lambda **s: FGSM(random_start=True, **s),
    "pgd": lambda **s: PGD(steps=5, restarts=2, **s),
    "mifgsm": lambda **s: MIFGSM(steps=5, **s),
}


def network(x):
    return tf.tanh(tf.cast(x, tf.float32) @ tf.constant(W, tf.float32))


def edge_heavy(high, dtype):
    x = RNG.uniform(0.0, high, (20, 40))
    x[:, :5], x[:, 5:10] = 0.0, high
    return x.astype(dtype)


def distance(a, b, norm):
    delta = a.astype("float64") - b.astype("float64")
    return (
        np.abs(delta).max() if norm == "linf" else np.linalg.norm(delta, axis=1).max()
    )


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("name", METHODS)
def test_inside(name, norm, dtype):
    x = edge_heavy(1.0, dtype)
    epsilon = 0.1 if norm == "linf" else 0.7
    x_adv = METHODS[name](epsilon=epsilon, norm=norm)(network, x)
    assert isinstance(x_adv, np.ndarray)
    assert x_adv.dtype == dtype
    assert x_adv.shape == x.shape
    assert distance(x_adv, x, norm) <= epsilon + 1e-6
    assert distance(x_adv, x, norm) > 0.9 * epsilon
    assert x_adv.min() >= 0.0
    assert x_adv.max() <= 1.0


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_inside_in_bytes(norm):
    x, epsilon = edge_heavy(255.0, "float32"), 8.1
    x_adv = PGD(epsilon=epsilon, norm=norm, input_range=(0, 255))(network, x)
    assert distance(x_adv, x, norm) <= epsilon + 1e-6
    assert x_adv.min() >= 0.0
    assert x_adv.max() <= 255.0


@pytest.mark.parametrize("epsilon", [1.0, 8.0])
def test_inside_in_bytes_as_far_as_float32_tells(epsilon):
    """All components are rounded the same way: the most that they add up to."""
    x = np.full((2, 784), 200.0, "float32")
    attack = FGSM(epsilon=epsilon, norm="l2", input_range=(0, 255))

    def brightness(x):
        mean = tf.reduce_mean(x, axis=1, keepdims=True)
        return tf.concat([200.0 - mean, tf.zeros_like(mean)], axis=1)

    x_adv = attack(brightness, x, [0, 0])
    excess = distance(x_adv, x, "l2") - epsilon
    assert 1e-6 < excess <= range_slack("float32", attack.input_range)


def test_inside_bfloat16():
    x = tf.cast(edge_heavy(1.0, "float32"), tf.bfloat16)
    x_adv = PGD(epsilon=0.1)(network, x)
    assert x_adv.dtype == tf.bfloat16
    a, b = (tf.cast(t, tf.float64).numpy() for t in (x_adv, x))
    assert distance(a, b, "linf") <= 0.1 + 1e-6
    assert a.min() >= 0.0
    assert a.max() <= 1.0


@pytest.mark.parametrize("make", [LinfBall, L2Ball])
def test_projection_of_a_point_inside_is_itself(make):
    origin = tf.constant(RNG.uniform(0.3, 0.7, (4, 6)).astype("float32"))
    ball = make(origin, 0.2, (0.0, 1.0))
    point = origin + 0.05 * tf.sign(origin - 0.5)
    np.testing.assert_allclose(ball.project(point), point, atol=1e-7)
    np.testing.assert_array_equal(ball.project(origin), origin)


def test_samples_fill_the_ball():
    origin = tf.fill((2000, 2), 0.5)
    seed = tf.constant([1, 2])
    cube = (LinfBall(origin, 0.2, (0.0, 1.0)).sample(seed) - origin) / 0.2
    # Moments of the uniform law, within five standard errors.
    assert abs(float(tf.reduce_mean(cube))) < 5 * np.sqrt(1 / 3 / 4000)
    assert abs(float(tf.reduce_mean(cube**2)) - 1 / 3) < 5 * np.sqrt(4 / 45 / 4000)
    disc = (L2Ball(origin, 0.2, (0.0, 1.0)).sample(seed) - origin) / 0.2
    squares = tf.reduce_sum(disc**2, axis=1)  # uniform on 0..1 in two dimensions
    assert abs(float(tf.reduce_mean(squares)) - 0.5) < 5 * np.sqrt(1 / 12 / 2000)
    assert abs(float(tf.reduce_mean(disc))) < 5 * np.sqrt(0.25 / 4000)


@pytest.mark.parametrize("function", [safe_normalize, mean_normalize, l2_norm])
def test_exactly_zero_and_tiny(function):
    x = tf.constant([[0.0, 0.0], [0.0, -3e-36], [1e30, 0.0]])
    result = function(x).numpy()
    assert np.isfinite(result).all()
    assert (result[0] == 0).all()
    if function is safe_normalize:
        np.testing.assert_allclose(result[1:], [[0, -1], [1, 0]], rtol=1e-6)


@pytest.mark.parametrize("dtype", [tf.float16, tf.bfloat16])
def test_rounding_stays_between(dtype):
    origin = tf.cast(RNG.uniform(size=(50, 40)), dtype)
    origin = tf.cast(origin, tf.float32)
    scales = tf.constant(10.0 ** RNG.uniform(-6, 0, (50, 1)), tf.float32)
    x = origin + scales * tf.constant(RNG.uniform(-1, 1, (50, 40)), tf.float32)
    near = tf.cast(round_towards(x, origin, dtype), tf.float32)
    # Below the smallest normal number the spacing is absolute: 6e-8 at most.
    assert float(tf.reduce_max(tf.abs(near - origin) - tf.abs(x - origin))) <= 1e-7
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = round_towards(x, origin, dtype)
    np.testing.assert_array_equal(tape.gradient(y, x), tf.ones_like(x))
