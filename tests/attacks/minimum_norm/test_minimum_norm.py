"""What all minimum-norm attacks share: radii, projection, final search, settings."""

import copy
import dataclasses
import json
import math
import pickle

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_jsigr.attacks.balls.ball import BALLS
from keras_jsigr.attacks.minimum_norm import minimum_norm
from keras_jsigr.attacks.minimum_norm.boundary import nearest_boundary
from keras_jsigr.attacks.minimum_norm.carlini_wagner import CarliniWagner
from keras_jsigr.attacks.minimum_norm.closest import lengths
from keras_jsigr.attacks.minimum_norm.deepfool import DeepFool
from keras_jsigr.attacks.minimum_norm.fab import FAB
from keras_jsigr.attacks.minimum_norm.line_search import line_search
from keras_jsigr.attacks.minimum_norm.rivals import rival_classes
from keras_jsigr.attacks.minimum_norm.sphere import sphere_point
from keras_jsigr.attacks.search.problem import Problem

METHODS = [FAB, DeepFool, CarliniWagner]
# One attack per method: its compiled programs serve all tests on the same model.
ATTACKS = {
    FAB: FAB(steps=5),
    DeepFool: DeepFool(),
    CarliniWagner: CarliniWagner(steps=100, learning_rate=0.02, initial_constant=0.1),
}
ORDERS = {"linf": np.inf, "l2": 2, "l1": 1}


def size(delta, norm):
    flat = np.asarray(delta, "float64").reshape(len(delta), -1)
    return np.linalg.norm(flat, ORDERS[norm], axis=1)


RNG = np.random.default_rng(11)
W1 = (RNG.normal(size=(64, 16)) / 8).astype("float32")
W2 = RNG.normal(size=(16, 5)).astype("float32")
X = RNG.uniform(0.35, 0.65, (12, 8, 8, 1)).astype("float32")


def net(x):
    """Small and smooth, and quicker to trace than a Keras model."""
    x = tf.reshape(tf.cast(x, tf.float32), [-1, 64]) - 0.5
    return tf.tanh(4.0 * x @ tf.constant(W1)) @ tf.constant(W2)


Y = np.argmax(net(X), axis=-1)


def in_batches_of(attack, size):
    """The same attack, with the same compiled programs."""
    other = copy.copy(attack)
    object.__setattr__(other, "batch_size", size)
    return other


def decision(model, x):
    return np.argmax(model(x), axis=-1)


@pytest.mark.parametrize("method", METHODS)
def test_round_trips(method):
    attack = method(input_range=[0, 255], seed=3)
    config = json.loads(json.dumps(attack.get_config()))
    assert config["epsilon"] is None
    assert method.from_config(config) == attack
    assert attack.epsilon == math.inf
    assert copy.deepcopy(attack) == attack
    assert pickle.loads(pickle.dumps(attack)) == attack
    assert attack.at(0.5) == method(epsilon=0.5, input_range=(0, 255), seed=3)
    serialized = keras.saving.serialize_keras_object(attack)
    assert keras.saving.deserialize_keras_object(serialized) == attack


def test_names():
    assert FAB().name == "FAB"
    assert FAB(target_classes=9).name == "FAB-T"
    assert DeepFool().name == "DeepFool"
    assert CarliniWagner().name == "CW-L2"


@pytest.mark.parametrize("method", METHODS)
def test_many_radii_from_one_search(method, monkeypatch):
    searches = []

    def counted(attack, *args, **kwargs):
        searches.append(attack.epsilon)
        return original(attack, *args, **kwargs)

    original = minimum_norm.run_batches
    monkeypatch.setattr(minimum_norm, "run_batches", counted)
    attack = in_batches_of(ATTACKS[method], 5)
    norm = attack.norm
    free = attack(net, X, Y)
    distance = size(free - X, norm)
    middle = float(np.median(distance))
    none, half, all_ = attack(net, X, Y, epsilons=[0, middle, math.inf])
    assert searches == [math.inf]
    np.testing.assert_array_equal(none, X)
    np.testing.assert_array_equal(all_, free)
    near = distance <= middle
    assert 0 < near.sum() < len(near)
    np.testing.assert_array_equal(half[near], free[near])
    assert (size(half - X, norm) <= middle * (1 + 1e-6)).all()
    np.testing.assert_array_equal(decision(net, half) != Y, near)
    for kind in (tf.constant, tf.Variable):
        tensors = attack(net, kind(X), Y, epsilons=[middle])
        np.testing.assert_allclose(tensors[0], half, atol=1e-6)
    with pytest.raises(ValueError, match="`epsilon` is out of range"):
        attack(net, X, Y, epsilons=[0.1, -1.0])


@pytest.mark.parametrize("method", METHODS)
def test_finite_radius_decides_the_same(method):
    """With a limit the search may stop earlier, with the same examples fooled."""
    attack = ATTACKS[method]
    distance = size(attack(net, X, Y) - X, attack.norm)
    # Midway between two distances, so that no rounding decides.
    low, high = np.sort(distance)[5:7]
    radius = float(low + high) / 2
    limited = attack.at(radius)(net, X, Y)
    assert (size(limited - X, attack.norm) <= radius * (1 + 1e-6)).all()
    np.testing.assert_array_equal(decision(net, limited) != Y, distance <= radius)


@pytest.mark.parametrize("method", METHODS)
def test_wrong_before_stays_where_it_is(method):
    y = Y.copy()
    y[::2] = (y[::2] + 1) % 5
    x_adv = ATTACKS[method](net, X, y)
    np.testing.assert_array_equal(x_adv[::2], X[::2])
    assert (size(x_adv - X, "linf")[1::2] > 0).all()
    assert (decision(net, x_adv) != y).all()


def certain(x):
    return tf.concat([x[:, :1] * 0.1 + 9.0, x[:, 1:2] * 0.1], axis=1)


def flat(x):
    return 0.0 * x + tf.constant([1.0, 0.0, 0.0])


@pytest.mark.parametrize(
    ("method", "model"), [(FAB, flat), (DeepFool, certain), (CarliniWagner, certain)]
)
def test_nothing_found_gives_the_input(method, model):
    x = np.random.default_rng(0).uniform(size=(4, 3)).astype("float32")
    for epsilon in (math.inf, 0.2):
        attack = ATTACKS[method].at(epsilon)
        np.testing.assert_array_equal(attack(model, x, np.zeros(4, int)), x)


@pytest.mark.parametrize("method", METHODS)
def test_batches_order_range_and_a_shift_of_the_logits(method):
    """All at once: none of them changes what is found."""
    attack = ATTACKS[method]
    whole = attack(net, X, Y)
    order = np.random.default_rng(1).permutation(len(X))
    parts = in_batches_of(attack, 5)(net, X[order], Y[order])
    wide = dataclasses.replace(attack, input_range=(0, 255), batch_size=12)

    def shifted(x):
        return net(x / 255.0) + 2.0 + tf.reduce_mean(x, [1, 2, 3])[:, None] / 255.0

    moved = wide(shifted, 255.0 * X, Y) / 255.0
    if method is not CarliniWagner:
        np.testing.assert_allclose(parts, whole[order], atol=1e-4)
        np.testing.assert_allclose(moved, whole, atol=3e-4)
    # Adam's path follows every rounding: there only the distances are compared.
    expected = size(whole - X, attack.norm)
    for other in (parts[np.argsort(order)], moved):
        np.testing.assert_allclose(size(other - X, attack.norm), expected, 2e-2)


@pytest.mark.parametrize("method", [FAB, CarliniWagner])
def test_regions_and_half_precision(method):
    region = np.zeros((8, 8))
    region[2:7, 1:6] = 1
    x = X.astype("float16")
    y = decision(net, x)
    x_adv = ATTACKS[method](net, x, y, region=region)
    assert x_adv.dtype == "float16"
    moved = (x_adv != x).any(axis=(0, 3))
    assert moved.any()
    assert not moved[region == 0].any()
    fooled = decision(net, x_adv) != y
    assert fooled.any()
    np.testing.assert_array_equal(x_adv[~fooled], x[~fooled])


@pytest.mark.parametrize("method", [FAB, CarliniWagner])
def test_one_sigmoid_unit(method):
    w = np.array([[1.0], [-2.0], [0.5]], "float32")

    def unit(x):
        return x @ tf.constant(w) + 0.3

    x = np.random.default_rng(2).uniform(0.3, 0.7, (8, 3)).astype("float32")
    z = unit(x).numpy()[:, 0]
    attack = dataclasses.replace(ATTACKS[method], norm="l2")
    x_adv = attack(unit, x, (z > 0).astype(int))
    assert ((unit(x_adv).numpy()[:, 0] > 0) != (z > 0)).all()
    expected = np.abs(z) / np.linalg.norm(w)
    slack = 0.02 * expected if method is CarliniWagner else 0.0
    distance = size(x_adv - x, "l2")
    assert (distance >= expected - 1e-6).all()
    assert (distance <= expected + slack + 1e-4).all()


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_lengths_and_spheres(norm):
    rng = np.random.default_rng(3)
    delta = rng.normal(size=(5, 3, 2))
    np.testing.assert_allclose(lengths(tf.constant(delta), norm), size(delta, norm))
    region = np.zeros((5, 4, 4))
    region[:, 1:3] = 1
    x = tf.fill((5, 4, 4), tf.constant(0.5, tf.float64))
    problem = Problem(x, tf.eye(5), tf.constant(region))
    radius = tf.constant([0.01, 0.1, 0.2, 0.3, np.inf], tf.float64)
    z = sphere_point(problem, radius, norm, (-9.0, 9.0), tf.constant([1, 2])) - x
    np.testing.assert_allclose(size(z, norm)[:4], radius[:4], rtol=1e-9)
    assert np.isfinite(z).all()
    assert not z.numpy()[region == 0].any()
    assert (z.numpy()[region == 1] != 0).all()
    assert np.abs(10 * z[0] - z[1]).max() > 1e-3


def test_line_search():
    """On margins of several shapes, one crossing at a known place."""
    place = np.linspace(0.05, 0.95, 7)

    def margins(x):
        t = x[:, 0] - place
        return tf.where(tf.range(7) % 2 == 0, t, tf.sign(t) * tf.abs(t) ** 3)

    def judge(x):
        return margins(x) > 0, margins(x)

    start = tf.ones((7, 1), tf.float64)
    for passes in (0, 4, 10, 24):
        x = line_search(judge, tf.zeros_like(start), start, passes)
        assert bool(tf.reduce_all(judge(x)[0]))
        assert (x[:, 0] - place <= 0.5 ** (passes // 2)).numpy().all()
    assert (x[::2, 0] - place[::2] < 1e-9).numpy().all()


@pytest.mark.parametrize(
    ("norm", "kind"), [("linf", "dense"), ("l2", "function"), ("l1", "recurrent")]
)
def test_nearest_boundary_against_the_jacobian(norm, kind):
    """Backward passes inside a loop, also through functions and recurrent layers."""
    layers = keras.layers
    body = {
        "dense": [layers.Flatten(), layers.Dense(6, "tanh")],
        "function": [layers.Flatten(), layers.Dense(6, "tanh")],
        "recurrent": [layers.LSTM(6)],
    }[kind]
    model = keras.Sequential([keras.Input((4, 3)), *body, layers.Dense(5)])
    logits_fn = tf.function(model) if kind == "function" else model
    x = tf.constant(np.random.default_rng(4).normal(size=(6, 4, 3)), tf.float32)
    targets = tf.one_hot(np.arange(6) % 5, 5)
    with tf.GradientTape() as tape:
        tape.watch(x)
        z = model(x)
    jacobian = tape.batch_jacobian(z, x).numpy()
    z, y = z.numpy(), np.arange(6) % 5
    rows = np.arange(6)
    gap = z - z[rows, y][:, None] - 1e-5 * np.abs(z).max(1, keepdims=True)
    w = jacobian - jacobian[rows, y][:, None]
    dual = {"linf": 1, "l2": 2, "l1": np.inf}[norm]
    slope = np.linalg.norm(w.reshape(6, 5, 12), dual, axis=2)
    slope[rows, y] = 1e-9
    gap[rows, y] = 1.0
    best = np.argmin(np.abs(gap) / slope, axis=1)

    def nearest(x):
        problem = Problem(x, targets)
        rivals = rival_classes(logits_fn(x), targets, 9)
        return nearest_boundary(logits_fn, problem, x, rivals, (-99.0, 99.0), norm)

    spec = [tf.TensorSpec((None, 4, 3))]
    plane = tf.function(nearest, input_signature=spec, autograph=False)(x)
    np.testing.assert_allclose(plane.weights, w[rows, best], atol=1e-5)
    np.testing.assert_allclose(plane.gap, gap[rows, best], atol=2e-6)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"epsilon": -1.0}, ValueError, "`epsilon` is out of range"),
        ({"epsilon": float("nan")}, ValueError, "`epsilon` is out of range"),
        ({"norm": "l7"}, ValueError, "Unknown `norm`"),
        ({"steps": 0}, ValueError, "`steps` is out of range"),
        ({"search_passes": -1}, ValueError, "`search_passes` is out of range"),
        ({"loss": "margin"}, TypeError, "loss"),
    ],
)
def test_refused_settings(method, settings, error, message):
    with pytest.raises(error, match=message):
        method(**settings)


def test_a_class_ruled_out_has_no_boundary():
    """FAB-T heads for it in its turn."""
    attack = FAB(steps=5, target_classes=5)
    x_adv = attack(with_a_class_of(float("-inf")), X, Y)
    np.testing.assert_allclose(x_adv, attack(net, X, Y), atol=1e-5)


def with_a_class_of(logit):
    """`net` with one more class, which it rules out."""

    def model(x):
        z = net(x)
        return tf.concat([z, tf.fill([tf.shape(z)[0], 1], logit)], axis=1)

    return model


@pytest.mark.slow
@pytest.mark.parametrize("logit", [-1e9, float("-inf")])
@pytest.mark.parametrize("method", METHODS)
def test_a_class_ruled_out_changes_nothing(method, logit):
    x_adv = ATTACKS[method](with_a_class_of(logit), X, Y)
    np.testing.assert_allclose(x_adv, ATTACKS[method](net, X, Y), atol=1e-5)
    assert (decision(net, x_adv) != Y).all()


@pytest.mark.parametrize("method", [FAB, CarliniWagner])
def test_nan_gradients_are_told(method):
    def cusp(x):
        return tf.concat([tf.sqrt(x - 0.5) + 1.0, x], axis=1)

    x = np.array([[0.5], [0.7]], "float32")
    with pytest.warns(RuntimeWarning, match=r"[12] of 2 examples"):
        x_adv = ATTACKS[method](cusp, x, [0, 0])
    assert np.isfinite(x_adv).all()


def test_no_gradient_is_refused():
    for method in METHODS:
        with pytest.raises(ValueError, match="got no gradient"):
            method()(lambda x: tf.round(x), np.full((2, 3), 0.4, "float32"), [0, 0])


def test_norms_of_the_balls_are_known():
    assert set(BALLS) <= set(ORDERS)
