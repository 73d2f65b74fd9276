"""The saliency attack: the class stays, the map moves."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_jsigr import gradient_map
from keras_jsigr.attacks.explanations.borrowed_curvature import BorrowedCurvature
from keras_jsigr.attacks.explanations.map_mass import (
    flat_map,
    mass_share,
    odds_gradient,
)
from keras_jsigr.attacks.explanations.saliency_attack import SaliencyAttack
from keras_jsigr.attacks.search.problem import Problem

TOP = 0.1


def build(activation):
    dense = keras.layers.Dense
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Flatten(),
            dense(24, activation=activation),
            dense(24, activation=activation),
            dense(3),
        ]
    )


@pytest.fixture(scope="module")
def smooth():
    """A network that tells three bars on noise apart, and images of 8 x 8 pixels."""
    keras.utils.set_random_seed(1)
    rng = np.random.default_rng(16)
    y = rng.integers(0, 3, 300)
    x = rng.uniform(0.2, 0.6, (300, 8, 8, 1))
    for number, label in enumerate(y):
        x[number, 2 * label + 1 : 2 * label + 3, 2:6] += 0.3
    x = x.astype("float32")
    net = build("silu")
    optimizer = keras.optimizers.Adam(0.01)
    optimizer.build(net.trainable_variables)

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            z = net(x)
            loss = tf.nn.sparse_softmax_cross_entropy_with_logits(y, z)
        gradients = tape.gradient(loss, net.trainable_variables)
        optimizer.apply_gradients(zip(gradients, net.trainable_variables, strict=True))

    for _ in range(60):
        step()
    assert (np.argmax(net(x), axis=1) == y).mean() > 0.95
    return net, x[:20]


def top(maps):
    flat = np.reshape(maps, (len(maps), -1))
    count = round(TOP * flat.shape[1])
    order = np.argsort(-flat, axis=1, kind="stable")[:, :count]
    return [set(row) for row in order]


def explain(net, x):
    """The map of the log odds: that of the log probability but for its scale."""
    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        z = net(x)
        decided = tf.one_hot(tf.argmax(z, 1), 3)
        others = tf.reduce_logsumexp(z - 1e9 * decided, axis=1)
        odds = tf.reduce_sum(decided * z, axis=1) - others
    return np.abs(tape.gradient(odds, x)).sum(axis=3)


def intersection(net, x, x_adv):
    """The share of the top pixels that both maps have in common, per example."""
    a, b = top(explain(net, x)), top(explain(net, x_adv))
    return np.array([len(s & t) / len(s) for s, t in zip(a, b, strict=True)])


def mass(net, x, x_adv):
    maps = np.reshape(explain(net, x_adv), (len(x), -1))
    pixels = top(explain(net, x))
    inside = [m[list(p)].sum() for m, p in zip(maps, pixels, strict=True)]
    return np.array(inside) / maps.sum(axis=1)


@pytest.mark.parametrize(("norm", "epsilon"), [("linf", 0.1), ("l2", 0.8)])
def test_the_map_moves_and_the_class_stays(smooth, norm, epsilon):
    net, x = smooth
    x_adv = SaliencyAttack(epsilon=epsilon, norm=norm, top=TOP)(net, x)
    np.testing.assert_array_equal(np.argmax(net(x_adv), 1), np.argmax(net(x), 1))
    delta = (x_adv - x).reshape(20, -1)
    size = np.linalg.norm(delta, np.inf if norm == "linf" else 2, axis=1)
    assert size.max() <= epsilon + 1e-6
    assert x_adv.min() >= 0.0
    assert x_adv.max() <= 1.0
    noise = np.random.default_rng(0).normal(size=x.shape).astype("float32")
    noise = 0.1 * np.sign(noise)
    if norm == "l2":
        noise *= epsilon / np.linalg.norm(noise.reshape(20, -1), axis=1)[0]
    before, after = mass(net, x, x), mass(net, x, x_adv)
    assert (after <= before + 1e-5).all()
    moved, moved_by_noise = before - after, np.abs(before - mass(net, x, x + noise))
    assert moved.mean() > 3 * moved_by_noise.mean()
    kept, by_chance = intersection(net, x, x_adv), intersection(net, x, x + noise)
    assert kept.mean() < by_chance.mean() - 0.2


def test_maps_are_those_of_gradient_map(smooth):
    net, x = smooth
    z = tf.constant(net(x))
    problem = Problem(tf.constant(x), tf.one_hot(tf.argmax(z, 1), 3))
    ours = flat_map(odds_gradient(net, problem.x, problem)[0]).numpy()
    theirs = gradient_map(net, x, score="margin").reshape(20, 64)
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(explain(net, x).reshape(20, 64), theirs, atol=1e-5)


def test_deterministic_in_one_trace_and_at_any_radius(smooth):
    net, x = smooth
    runs = []

    def model(x):
        runs.append(1)
        return net(x)

    attack = SaliencyAttack(epsilon=0.1, steps=10, top=TOP)
    first = attack(model, x)
    count = len(runs)
    np.testing.assert_array_equal(attack(model, x), first)
    small, large = attack(model, x[:7], epsilons=[0.02, 0.1])
    assert len(runs) == count
    np.testing.assert_allclose(large, first[:7], atol=1e-5)
    assert mass(net, x[:7], large).mean() < mass(net, x[:7], small).mean()
    # The class explained is the model's own, whatever the labels.
    wrong = (np.argmax(net(x), 1) + 1) % 3
    np.testing.assert_array_equal(attack(model, x, wrong), first)


def test_region(smooth):
    net, x = smooth
    region = np.zeros((8, 8))
    region[:, :4] = 1
    x_adv = SaliencyAttack(epsilon=0.2, steps=10, top=TOP)(net, x, region=region)
    np.testing.assert_array_equal(x_adv[:, :, 4:], x[:, :, 4:])
    assert (x_adv[:, :, :4] != x[:, :, :4]).any()
    # The mass is that of the whole map.
    assert (mass(net, x, x_adv) <= mass(net, x, x) + 1e-5).all()
    assert mass(net, x, x_adv).mean() < mass(net, x, x).mean() - 0.01


def test_relu_by_borrowed_curvature(smooth):
    stand_in, x = smooth
    net = build("relu")
    net.set_weights(stand_in.get_weights())
    attack = SaliencyAttack(epsilon=0.1, top=TOP, steps=20)
    x_adv = attack(BorrowedCurvature(net, stand_in), x)
    np.testing.assert_array_equal(np.argmax(net(x_adv), 1), np.argmax(net(x), 1))
    # Judged on the ReLU network itself.
    assert (mass(net, x, x_adv) <= mass(net, x, x) + 1e-5).all()
    assert mass(net, x, x_adv).mean() < 0.9 * mass(net, x, x).mean()


@pytest.mark.slow
def test_borrowed_curvature(make_cnn):
    model, other = make_cnn(0, activation="softmax"), make_cnn(1)
    logits = make_cnn(0)
    x = tf.constant(np.random.default_rng(2).uniform(size=(3, 8, 8, 1)), tf.float32)

    def derivatives(f):
        with tf.GradientTape() as outer:
            outer.watch(x)
            with tf.GradientTape() as inner:
                inner.watch(x)
                z = f(x)
                first_logit = z[:, 0]
            first = inner.gradient(first_logit, x)
            total = tf.reduce_sum(first**2) / 2
        # The derivative of half the square is curvature times slope.
        return z, first, outer.gradient(total, x)

    borrowed = BorrowedCurvature(model, other)
    z, first, second = tf.function(lambda: derivatives(borrowed))()
    real, real_first, _ = derivatives(logits)
    np.testing.assert_allclose(z, real, atol=1e-5)
    np.testing.assert_allclose(first, real_first, atol=1e-6)
    with tf.GradientTape() as outer:
        outer.watch(x)
        with tf.GradientTape() as inner:
            inner.watch(x)
            value = other(x)[:, 0]
        product = tf.reduce_sum(inner.gradient(value, x) * real_first)
    np.testing.assert_allclose(second, outer.gradient(product, x), atol=1e-6)


def test_mass_and_its_derivative():
    rng = np.random.default_rng(3)
    maps, pixels = rng.uniform(size=(4, 9)), rng.uniform(size=(4, 9)) < 0.4
    expected = (maps * pixels).sum(1) / maps.sum(1)
    for scale in (1.0, 1e-25, 1e25):
        result = mass_share(tf.constant(scale * maps), tf.constant(pixels))
        np.testing.assert_allclose(result, expected, rtol=1e-9)
    zero = mass_share(tf.zeros((1, 4)), tf.constant([[True, False, False, False]]))
    assert zero.numpy().tolist() == [1.0]
    point = tf.constant(1e-25 * maps)
    with tf.GradientTape() as tape:
        tape.watch(point)
        share = mass_share(point, tf.constant(pixels))
    gradient = tape.gradient(share, point).numpy() * 1e-25
    total = maps.sum(1, keepdims=True)
    np.testing.assert_allclose(
        gradient, (pixels - expected[:, None]) / total, rtol=1e-9, atol=1e-12
    )
    colours = rng.normal(size=(2, 3, 4, 5))
    expected = np.abs(colours).sum(3).reshape(2, 12)
    np.testing.assert_allclose(flat_map(tf.constant(colours)), expected)


def test_map_of_a_sure_model(cnn):
    """The gradient of the log probability vanishes; that of the log odds does not."""
    x = tf.constant(np.random.default_rng(4).uniform(size=(3, 8, 8, 1)), tf.float32)
    rows = tf.one_hot(tf.argmax(cnn(x), axis=1), 5)
    gradient, _ = odds_gradient(lambda x: 1e4 * cnn(x), x, Problem(x, rows))
    assert (np.abs(gradient[:, :7, :7]) > 0).all()


def test_no_second_derivative():
    """A linear model has one map: nothing to move, nothing moved."""

    def linear(x):
        return x @ tf.constant([[1.0, -1.0], [0.5, 2.0]])

    x = np.full((2, 2), 0.5, "float32")
    np.testing.assert_array_equal(SaliencyAttack(epsilon=0.1)(linear, x), x)


def test_settings():
    attack = SaliencyAttack(epsilon=0.1, top=0.2, step_size=0.01)
    config = json.loads(json.dumps(attack.get_config()))
    assert SaliencyAttack.from_config(config) == attack
    assert eval(repr(attack)) == attack
    serialized = keras.saving.serialize_keras_object(attack)
    assert keras.saving.deserialize_keras_object(serialized) == attack
    for settings in ({"top": 0.0}, {"top": 1.0}, {"steps": 0}, {"step_size": -1.0}):
        with pytest.raises(ValueError, match="is out of range"):
            SaliencyAttack(epsilon=0.1, **settings)
    with pytest.raises(TypeError, match="targeted"):
        SaliencyAttack(epsilon=0.1, targeted=True)
