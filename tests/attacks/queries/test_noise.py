"""Noise: its law, the ball, and which draw is kept."""

from statistics import NormalDist

import numpy as np
import pytest
import tensorflow as tf

from keras_jsigr.attacks.balls.ball import BALLS
from keras_jsigr.attacks.balls.l1_ball import L1Ball
from keras_jsigr.attacks.queries.noise import GaussianNoise, UniformNoise

RNG = np.random.default_rng(21)
W = RNG.normal(size=(30, 3))
KINDS = [UniformNoise, GaussianNoise]


def network(x):
    return tf.tanh(tf.cast(x, tf.float32) @ tf.constant(W, tf.float32))


def inputs(n, dtype="float32"):
    return RNG.uniform(size=(n, 30)).astype(dtype)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("norm", "epsilon", "dtype"), [("linf", 0.1, "float16"), ("l2", 0.5, "float64")]
)
def test_inside(kind, norm, epsilon, dtype):
    x = inputs(9, dtype)
    x[:, :9] = np.round(x[:, :9])
    x_adv = kind(epsilon=epsilon, norm=norm, draws=5)(network, x)
    assert x_adv.dtype == dtype
    delta = x_adv.astype("float64") - x
    lengths = np.linalg.norm(delta, np.inf if norm == "linf" else 2, axis=1)
    assert (lengths <= epsilon + 1e-6).all()
    assert x_adv.min() >= 0
    assert x_adv.max() <= 1
    assert (lengths > 0).any()


@pytest.mark.parametrize("kind", KINDS)
def test_keeps_the_first_success_else_the_largest_loss(kind):
    seen = []

    def witness(x):
        z = network(x)
        tf.py_function(lambda x, z: seen.append((x.numpy(), z.numpy())), [x, z], [])
        return z

    x = inputs(40)
    y = np.argmax(network(x), axis=1)
    attack = kind(epsilon=0.15, draws=20)
    attack(witness, x, y)
    seen.clear()
    x_adv = attack(witness, x, y)
    ways = {"first": 0, "largest": 0}
    for b in range(40):
        near = [
            (point, z)
            for points, logits in seen
            for point, z in zip(points, logits, strict=True)
            if np.abs(point - x[b]).max() <= 0.15 + 1e-6
        ]
        margins = np.array([np.delete(z, y[b]).max() - z[y[b]] for _, z in near])
        fooled = np.flatnonzero(margins > 0)
        kept = fooled[0] if len(fooled) else np.argmax(margins)
        np.testing.assert_array_equal(x_adv[b], near[kept][0])
        ways["first" if len(fooled) else "largest"] += 1
        assert len(fooled) or len(near) == 21
    assert min(ways.values()) > 0


@pytest.mark.parametrize("kind", KINDS)
def test_l1(monkeypatch, kind):
    monkeypatch.setitem(BALLS, "l1", L1Ball)
    x = inputs(9)
    x_adv = kind(epsilon=2.0, norm="l1", draws=5)(network, x)
    lengths = np.abs(x_adv.astype("float64") - x).sum(axis=1)
    assert (lengths <= 2.0 + 1e-6).all()
    assert lengths.max() > 0.5
    ball = L1Ball(tf.zeros((50, 3000)), 2.0, (-9.0, 9.0))
    noise = GaussianNoise(epsilon=2.0, norm="l1").draw(ball, None, tf.constant([0, 1]))
    lengths = np.abs(noise).sum(axis=1) / 2.0
    # The deviation of |n| is sqrt(1 - 2 / pi) and its mean sqrt(2 / pi).
    error = np.sqrt((np.pi / 2 - 1) / 3000 / 50)
    assert abs(lengths.mean() - 1) < 5 * error


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_default_deviation(norm):
    """The noise is about as long as the radius."""
    d, n = 3000, 50
    attack = GaussianNoise(epsilon=0.4, norm=norm)
    x = tf.zeros((n, d))
    noise = attack.draw(BALLS[norm](x, 0.4, (-9.0, 9.0)), None, tf.constant([0, 1]))
    if norm == "l2":
        lengths = np.linalg.norm(noise, axis=1)
        assert abs(lengths.mean() - 0.4) < 5 * 0.4 / np.sqrt(2 * d * n) + 1e-4
    else:
        # The median of the largest of d: half of the batches stay below it. The
        # default is a bound of the expected maximum, a little above it.
        sigma = 0.4 / np.sqrt(2 * np.log(2 * d))
        median = sigma * NormalDist().inv_cdf((1 + 0.5 ** (1 / d)) / 2)
        assert 0.85 * 0.4 < median < 0.4
        below = (np.abs(noise).max(axis=1) < median).mean()
        assert abs(below - 0.5) < 5 * np.sqrt(0.25 / n)
    given = GaussianNoise(epsilon=0.4, norm=norm, sigma=0.03)
    noise = given.draw(BALLS[norm](x, 0.4, (-9.0, 9.0)), None, tf.constant([0, 1]))
    spread = np.std(noise)
    assert abs(spread - 0.03) < 5 * 0.03 / np.sqrt(2 * n * d)


def test_uniform_fills_the_ball():
    x = np.full((4000, 1), 0.5, "float32")

    def never(x):
        return tf.concat([0 * x + 1, 0 * x], axis=1)

    # A constant loss: the first draw is no improvement, so nothing may move.
    np.testing.assert_array_equal(UniformNoise(epsilon=0.2)(never, x), x)
    drawn = UniformNoise(epsilon=0.2, draws=1).draw(
        BALLS["linf"](tf.constant(x), 0.2, (0.0, 1.0)), None, tf.constant([5, 6])
    )
    u = (drawn.numpy() - 0.5) / 0.2
    assert abs(u.mean()) < 5 * np.sqrt(1 / 3 / 4000)
    assert abs((u**2).mean() - 1 / 3) < 5 * np.sqrt(4 / 45 / 4000)


@pytest.mark.parametrize("kind", KINDS)
def test_region_seeds_targets(kind):
    x, region = inputs(40), np.arange(30) < 10
    y = (np.argmax(network(x), axis=1) + 1) % 3
    attack = kind(epsilon=0.2, draws=30, targeted=True)
    x_adv = attack(network, x, y)
    reached = np.argmax(network(x_adv), axis=1) == y
    assert 0 < reached.mean() < 1
    np.testing.assert_array_equal(x_adv, attack(network, x, y))
    other = kind(epsilon=0.2, draws=30, targeted=True, seed=1)(network, x, y)
    assert (other != x_adv).any()
    x_adv = attack(network, x, y, region=region)
    assert (x_adv != x)[:, :10].any()
    np.testing.assert_array_equal(x_adv[:, 10:], x[:, 10:])


def test_names_and_settings():
    assert UniformNoise(epsilon=0.1).name == "uniform noise"
    assert GaussianNoise(epsilon=0.1).name == "Gaussian noise"
    assert UniformNoise(epsilon=0.1).passes == 101
    attack = GaussianNoise(epsilon=0.1, sigma=0.5, draws=3)
    assert GaussianNoise.from_config(attack.get_config()) == attack
    for settings in ({"draws": 0}, {"sigma": 0.0}):
        with pytest.raises(ValueError, match="out of range"):
            GaussianNoise(epsilon=0.1, **settings)
