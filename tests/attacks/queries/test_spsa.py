"""SPSA: an unbiased gradient, the linear optimum, and nothing but outputs."""

import numpy as np
import pytest
import tensorflow as tf

from keras_jsigr.attacks.balls.ball import BALLS
from keras_jsigr.attacks.balls.l1_ball import L1Ball
from keras_jsigr.attacks.queries.spsa import SPSA
from keras_jsigr.attacks.queries.spsa_gradient import spsa_gradient
from keras_jsigr.core.sum_in_groups import sum_in_groups

RNG = np.random.default_rng(41)
# No difference of the columns near zero, whose sign would drown in the noise.
W = np.zeros((6, 2), "float32")
W[:, 1] = RNG.choice([-1, 1], 6) * RNG.uniform(0.5, 1.5, 6)
SHARP = {"samples": 1024, "early_stop": False}
X = RNG.uniform(0.3, 0.7, (9, 6)).astype("float32")


def linear(x):
    return tf.cast(x, tf.float32) @ tf.constant(W)


def downhill(y):
    return np.stack([W[:, 1 - k] - W[:, k] for k in y])


def estimates(ask, x, many, **settings):
    """Independent estimates of the gradient at one point, in one go."""
    x = tf.tile(tf.constant(x)[None], [many, 1])
    return spsa_gradient(ask, x, seed=tf.constant([3, 4]), **settings).numpy()


def assert_unbiased(found, expected):
    error = found.std(axis=0) / np.sqrt(len(found))
    assert (np.abs(found.mean(axis=0) - expected) < 5 * error + 1e-9).all()


def test_unbiased_on_a_quadratic():
    a, x = RNG.normal(size=(4, 4)), RNG.normal(size=4)

    def ask(points):
        return tf.reduce_sum(points * tf.linalg.matvec(a, points), axis=1), points

    found = estimates(ask, x, 2000, pairs=3, delta=0.5)
    assert_unbiased(found, (a + a.T) @ x)
    # The variance falls with the number of pairs.
    more = estimates(ask, x, 2000, pairs=12, delta=0.5)
    assert_unbiased(more, (a + a.T) @ x)
    np.testing.assert_allclose(found.var(0) / more.var(0), 4, rtol=0.25)


def test_known_variance():
    """`Var g_i = sum_{j != i} g_j^2` for one pair, and the mean from every pair."""
    w = np.array([1.0, -2.0, 3.0])

    def ask(points):
        return tf.linalg.matvec(points, w), points

    found = estimates(ask, np.zeros(3), 4000, pairs=1, delta=0.1)
    np.testing.assert_allclose(found.var(axis=0), [13, 10, 5], rtol=0.1)
    assert_unbiased(found, w)


def test_unbiased_at_the_edge_of_the_range():
    """Clipped points count by how far they really lie apart."""
    w = np.array([1.0, -2.0, 3.0, 0.5])

    def ask(points):
        seen = tf.clip_by_value(points, 0.0, 1.0)
        return tf.linalg.matvec(seen, w), seen

    found = estimates(ask, np.array([0.0, 1.0, 0.5, 0.04]), 4000, pairs=2, delta=0.1)
    assert_unbiased(found, w)


def test_no_room_no_gradient():
    def ask(points):
        return tf.reduce_sum(points, axis=1), points * [1.0, 0.0]

    found = estimates(ask, np.float32([0.5, 0.5]), 5, pairs=2, delta=0.1)
    assert np.isfinite(found).all()
    assert (found[:, 1] == 0).all()


@pytest.mark.parametrize(
    ("optimizer", "loss"),
    [(None, "margin"), ("adam", "cross_entropy"), ("steepest", "margin")],
)
def test_linear_optimum_linf(optimizer, loss):
    y = np.arange(9) % 2
    x_adv = SPSA(epsilon=0.1, loss=loss, optimizer=optimizer, **SHARP)(linear, X, y)
    np.testing.assert_allclose(x_adv, X + 0.1 * np.sign(downhill(y)), atol=1e-5)


@pytest.mark.parametrize("optimizer", ["adam", None])
def test_linear_optimum_l2(optimizer):
    y, w = np.arange(9) % 2, downhill(np.arange(9) % 2)
    attack = SPSA(epsilon=0.2, norm="l2", optimizer=optimizer, **SHARP)
    gained = np.sum((attack(linear, X, y) - X) * w, axis=1)
    best = 0.2 * np.linalg.norm(w, axis=1)
    # Adam evens out the components: its fixed point is close to the best only.
    assert (gained > (0.8 if optimizer == "adam" else 0.97) * best).all()
    assert (gained <= best * (1 + 1e-5)).all()


def test_linear_l1(monkeypatch):
    monkeypatch.setitem(BALLS, "l1", L1Ball)
    y, w = np.arange(9) % 2, downhill(np.arange(9) % 2)
    x_adv = SPSA(epsilon=0.2, norm="l1", **SHARP)(linear, X, y)
    assert (np.abs(x_adv - X).sum(axis=1) <= 0.2 + 1e-6).all()
    # The best is all of the radius on the component of the largest slope, which the
    # noise may mistake for the runner-up, 1.6% smaller.
    slopes = np.sort(np.abs(w), axis=1)
    gained = np.sum((x_adv - X) * w, axis=1)
    assert (gained >= 0.2 * slopes[:, -2] * (1 - 1e-5)).all()
    assert (gained <= 0.2 * slopes[:, -1] * (1 + 1e-5)).all()


def test_targeted_and_range():
    y = np.arange(9) % 2
    attack = SPSA(epsilon=100.0, input_range=(0, 255), targeted=True, **SHARP)
    x_adv = attack(linear, 255 * X, y)
    best = np.clip(255 * X - 100 * np.sign(downhill(y)), 0, 255)
    np.testing.assert_allclose(x_adv, best, atol=1e-3)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_no_gradient_is_used(cnn, dtype):
    x = np.random.default_rng(5).uniform(size=(8, 8, 8, 1)).astype(dtype)
    y = np.argmax(cnn(x), axis=-1)

    def rounded(x):
        return tf.stop_gradient(tf.round(cnn(x) * 1e3) / 1e3)

    attack = SPSA(epsilon=0.15, steps=15, samples=64)
    x_adv = attack(rounded, x, y)
    assert x_adv.dtype == dtype
    assert (np.argmax(cnn(x_adv), axis=-1) != y).mean() > 0.5
    delta = np.abs(x_adv.astype("float64") - x)
    assert delta.max() <= 0.15 + 1e-6
    np.testing.assert_array_equal(x_adv, attack(rounded, x, y))


@pytest.mark.slow
def test_region_and_seed():
    y, region = np.arange(9) % 2, np.arange(6) < 3
    attack = SPSA(epsilon=0.1, **SHARP)
    x_adv = attack(linear, X, y, region=region)
    best = X + 0.1 * np.sign(downhill(y)) * region
    np.testing.assert_allclose(x_adv, best, atol=1e-5)
    one, two = (
        SPSA(epsilon=0.1, steps=2, samples=2, early_stop=False, seed=seed)(linear, X, y)
        for seed in (0, 1)
    )
    assert (one != two).any()


@pytest.mark.slow
@pytest.mark.parametrize("samples", [1000, 1008])
@pytest.mark.parametrize("options", [{}, {"restarts": 2, "early_stop": False}])
def test_inside_xla(samples, options):
    """28 pairs of 18 examples at once: the last group is smaller, or as large."""
    y = np.arange(9) % 2
    attack = SPSA(epsilon=0.1, steps=5, samples=samples, **options)

    @tf.function(jit_compile=True)
    def step(x, targets):
        return attack.perturb(linear, x, targets, seed=tf.constant([0, 1]))

    x_adv = step(tf.constant(X), tf.one_hot(y, 2))
    np.testing.assert_allclose(x_adv, X + 0.1 * np.sign(downhill(y)), atol=1e-5)


@pytest.mark.parametrize("count", [0, 2, 6, 7])
def test_known_sizes_give_the_groups_of_unknown_ones(count):
    def part(first, size):
        numbers = tf.range(first, first + size)
        return tf.reduce_sum(1 + numbers * numbers), tf.constant(1)

    like = (tf.constant(0), tf.constant(0))
    known = sum_in_groups(count, 3, part, like)
    unknown = sum_in_groups(tf.constant(count), tf.constant(3), part, like)
    expected = sum(1 + i * i for i in range(count)), -(-count // 3)
    assert tuple(map(int, known)) == tuple(map(int, unknown)) == expected


def test_counts_its_queries():
    per_example = []

    def counted(x):
        z = linear(x)
        tf.py_function(lambda n: per_example.append(int(n)), [tf.shape(x)[0]], [])
        return z

    attack = SPSA(epsilon=1e-3, steps=4, samples=10, early_stop=False)
    y = np.argmax(linear(X), axis=1)
    attack(counted, X, y)
    per_example.clear()
    attack(counted, X, y)
    # And at the end for those with an earlier success to beat: none, which is asked as
    # one row of zeros.
    assert sum(per_example) == len(X) * attack.passes + 1
    assert attack.passes == 44


def test_refused():
    with pytest.raises(ValueError, match="`samples` is odd: got 5"):
        SPSA(epsilon=0.1, samples=5)
    with pytest.raises(ValueError, match="`delta` is out of range"):
        SPSA(epsilon=0.1, delta=0.0)
    with pytest.raises(ValueError, match="Unknown `optimizer`: got 'sgd'"):
        SPSA(epsilon=0.1, optimizer="sgd")
    attack = SPSA(epsilon=0.1, restarts=3, delta=0.02)
    assert SPSA.from_config(attack.get_config()) == attack
    assert attack.name == "SPSA"
