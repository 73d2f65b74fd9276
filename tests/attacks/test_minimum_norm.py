"""The projection onto a plane within the box, against other ways to solve it."""

import dataclasses
import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import optimize

from keras_jsigr.attacks import minimum_norm
from keras_jsigr.attacks.base import AttackContext
from keras_jsigr.attacks.carlini_wagner import (
    CarliniWagner,
    adam_start,
    adam_step,
    box_slope,
    constant_next,
    constant_start,
    from_box,
    to_box,
)
from keras_jsigr.attacks.fab import FAB, fab_step, sphere_point
from keras_jsigr.attacks.minimum_norm import (
    Boundary,
    DeepFool,
    lengths,
    line_search,
    linear_projection,
    nearest_boundary,
    top_other_classes,
)

NORMS = ["linf", "l2", "l1"]


ORDERS = {"linf": np.inf, "l2": 2, "l1": 1}


def problems(n, d, seed=0, reachable=True, dtype="float64"):
    rng = np.random.default_rng(seed)
    x = rng.uniform(size=(n, d))
    x[:, 0] = rng.integers(0, 2, n)  # On the edge of the box.
    w = rng.normal(size=(n, d)) * rng.uniform(0.01, 3, (1, d))
    w[:, 1] = 0.0
    # All that moving to the farthest corner towards the plane can gain.
    sign = rng.choice([-1.0, 1.0], n)
    gain = (np.abs(w) * np.where(w * sign[:, None] > 0, x, 1 - x)).sum(1)
    share = rng.uniform(0.02, 0.98, n) if reachable else rng.uniform(1.1, 2, n)
    return tuple(a.astype(dtype) for a in (x, w, sign * share * gain))


def project(x, w, gap, norm, input_range=(0.0, 1.0)):
    return linear_projection(*map(tf.constant, (x, w, gap)), input_range, norm).numpy()


def length(delta, norm):
    return np.linalg.norm(delta, ORDERS[norm], axis=-1)


def by_linear_program(x, w, gap, norm):
    """L1 and Linf as linear programs, solved by HiGHS."""
    d = len(x)
    if norm == "linf":  # z, t: minimise t
        cost = np.r_[np.zeros(d), 1]
        one = np.ones((d, 1))
        upper = np.block([[np.eye(d), -one], [-np.eye(d), -one]])
        bounds = [(0, 1)] * d + [(0, None)]
    else:  # z, s: minimise sum(s)
        cost = np.r_[np.zeros(d), np.ones(d)]
        eye = np.eye(d)
        upper = np.block([[eye, -eye], [-eye, -eye]])
        bounds = [(0, 1)] * d + [(0, None)] * d
    equal = np.r_[w, np.zeros(len(cost) - d)][None]
    solved = optimize.linprog(cost, upper, np.r_[x, -x], equal, [w @ x - gap], bounds=bounds)
    return solved.fun


def by_bisection(x, w, gap):
    """L2: z = clip(x - t w) with the multiplier t found by bisection."""

    def value(t):
        return w @ (np.clip(x - t * w, 0, 1) - x) + gap

    t = optimize.brentq(value, -1e6, 1e6, xtol=1e-15, rtol=1e-14, maxiter=500)
    return np.linalg.norm(np.clip(x - t * w, 0, 1) - x)


def test_against_solvers():
    def check(norm):
        x, w, gap = problems(25, 12)
        z = project(x, w, gap, norm)
        assert (z >= 0).all()
        assert (z <= 1).all()
        np.testing.assert_allclose((w * (z - x)).sum(1), -gap, atol=1e-9)
        solve = by_bisection if norm == "l2" else lambda *a: by_linear_program(*a, norm)
        best = [solve(*row) for row in zip(x, w, gap, strict=True)]
        np.testing.assert_allclose(length(z - x, norm), best, rtol=1e-6, atol=1e-9)

    for norm in NORMS:
        check(norm)


def test_no_feasible_point_is_nearer():
    """Brute force in two dimensions: all points of the line within the box."""
    for norm in NORMS:
        rng = np.random.default_rng(3)
        for x, w, gap in zip(*problems(20, 3, seed=4), strict=True):
            keep = [0, 2]
            x, w = x[keep], w[keep]
            along = np.array([-w[1], w[0]]) / np.linalg.norm(w)
            foot = x - gap * w / (w @ w)
            line = foot + rng.uniform(-2, 2, (4000, 1)) * along
            line = line[((line >= 0) & (line <= 1)).all(1)]
            z = project(x[None], w[None], gap[None], norm)
            assert (length(line - x, norm) >= length(z - x, norm) - 1e-9).all()
            assert len(line)


def test_free_planes_have_a_closed_form():
    """Without the box the distance is |gap| / ||w||_q."""
    for norm in NORMS:
        rng = np.random.default_rng(5)
        w, gap = rng.normal(size=(30, 9)), rng.normal(size=30)
        z = project(np.zeros((30, 9)), w, gap, norm, (-1e6, 1e6))
        dual = {"linf": 1, "l2": 2, "l1": np.inf}[norm]
        expected = np.abs(gap) / np.linalg.norm(w, dual, axis=1)
        np.testing.assert_allclose(length(z, norm), expected, rtol=1e-9)


def test_out_of_reach_is_the_nearest_corner():
    for norm in NORMS:
        x, w, gap = problems(20, 7, reachable=False)
        expected = np.where(w * gap[:, None] > 0, 0.0, np.where(w == 0, x, 1.0))
        np.testing.assert_allclose(project(x, w, gap, norm), expected, atol=1e-12)


def test_ties_and_nothing_to_do():
    for norm in NORMS:
        x = np.full((3, 4), 0.5)
        w = np.array([[1.0, 1, 1, 1], [0, 0, 0, 0], [2, -1, 1, 0]])
        z = project(x, w, np.array([-0.9, -1.0, 0.0]), norm)
        np.testing.assert_allclose(z[0].sum(), 2.9)
        np.testing.assert_array_equal(z[1:], x[1:])
        size = {"linf": 0.225, "l2": 0.45, "l1": 0.9}[norm]
        np.testing.assert_allclose(length(z[0] - x[0], norm), size)


def test_float32_images_in_a_graph():
    """Many components, any batch size, small gradients, another range."""

    def check(norm):
        x, w, gap = problems(6, 3072, dtype="float32")
        expected = project(*(a.astype("float64") for a in (x, w, gap)), norm)
        shape = (6, 32, 32, 3)
        spec = tf.TensorSpec((None, *shape[1:]), tf.float32)
        compiled = tf.function(
            lambda x, w, gap: linear_projection(x, w, gap, (0.0, 255.0), norm),
            input_signature=[spec, spec, tf.TensorSpec((None,), tf.float32)],
            autograph=False,
        )
        images, normals = (tf.constant(a.reshape(shape)) for a in (255 * x, 1e-28 * w))
        z = compiled(images, normals, tf.constant(255 * 1e-28 * gap)) / 255
        size = length(expected - x, norm)
        error = length(z.numpy().reshape(6, -1) - expected, norm)
        assert (error < 1e-5 * size).all()

    for norm in NORMS:
        check(norm)


def test_rows_do_not_mix():
    x, w, gap = problems(9, 6)
    for norm in NORMS:
        whole = project(x, w, gap, norm)
        rows = [project(x[i : i + 1], w[i : i + 1], gap[i : i + 1], norm)[0] for i in range(9)]
        np.testing.assert_allclose(whole, rows, atol=1e-12)


METHODS = [FAB, DeepFool, CarliniWagner]
# One of them is enough in `make test`.
QUICKLY = [FAB, *(pytest.param(kind, marks=pytest.mark.slow) for kind in METHODS[1:])]


# One attack per method: its compiled programs serve all tests on the same model.
ATTACKS = {
    FAB: FAB(steps=5),
    DeepFool: DeepFool(),
    CarliniWagner: CarliniWagner(steps=100, learning_rate=0.02, initial_constant=0.1),
}


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
    return dataclasses.replace(attack, batch_size=size)


def decision(model, x):
    return np.argmax(model(x), axis=-1)


def test_names():
    assert FAB().name == "FAB"
    assert FAB(target_classes=9).name == "FAB-T"
    assert DeepFool().name == "DeepFool"
    assert CarliniWagner().name == "CW-L2"


@pytest.mark.parametrize("method", QUICKLY)
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
    assert searches == [math.inf] * 2
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


@pytest.mark.slow
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


def certain(x):
    return tf.concat([x[:, :1] * 0.1 + 9.0, x[:, 1:2] * 0.1], axis=1)


def flat(x):
    return 0.0 * x + tf.constant([1.0, 0.0, 0.0])


def test_nothing_found_gives_the_input():
    for method, model in [(FAB, flat), (DeepFool, certain)]:
        x = np.random.default_rng(0).uniform(size=(4, 3)).astype("float32")
        for epsilon in (math.inf, 0.2):
            attack = ATTACKS[method].at(epsilon)
            np.testing.assert_array_equal(attack(model, x, np.zeros(4, int)), x)


@pytest.mark.slow
@pytest.mark.parametrize("method", QUICKLY)
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


@pytest.mark.slow
def test_one_sigmoid_unit():
    def check(method):
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

    for method in [FAB]:
        check(method)


def test_lengths_and_spheres():
    for norm in ["linf", "l2", "l1"]:
        rng = np.random.default_rng(3)
        delta = rng.normal(size=(5, 3, 2))
        np.testing.assert_allclose(lengths(tf.constant(delta), norm), size(delta, norm))
        region = np.zeros((5, 4, 4))
        region[:, 1:3] = 1
        x = tf.fill((5, 4, 4), tf.constant(0.5, tf.float64))
        radius, seed = tf.constant([0.01, 0.1, 0.2, 0.3, np.inf], tf.float64), [1, 2]
        limits = (np.inf, seed, norm, (-9.0, 9.0), tf.constant(region))
        context = AttackContext(None, x, tf.eye(5), *limits)
        z = sphere_point(context, radius, seed) - x
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


def test_nearest_boundary_against_the_jacobian():
    """Backward passes inside a loop, also through functions and recurrent layers."""

    def check(norm, kind):
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
            limits = (np.inf, [0, 0], norm)
            context = AttackContext(logits_fn, x, targets, *limits)
            rivals = top_other_classes(logits_fn(x), targets, 9)
            return nearest_boundary(context, x, rivals, (-99.0, 99.0))

        spec = [tf.TensorSpec((None, 4, 3))]
        plane = tf.function(nearest, input_signature=spec, autograph=False)(x)
        np.testing.assert_allclose(plane.weights, w[rows, best], atol=1e-5)
        np.testing.assert_allclose(plane.gap, gap[rows, best], atol=2e-6)

    for norm, kind in [("linf", "function"), ("l1", "recurrent")]:
        check(norm, kind)


def test_refused_settings():
    for method in METHODS:
        for settings, error, message in [
            ({"epsilon": -1.0}, ValueError, "`epsilon` is out of range"),
            ({"epsilon": float("nan")}, ValueError, "`epsilon` is out of range"),
            ({"norm": "l7"}, ValueError, "Unknown `norm`"),
            ({"steps": 0}, ValueError, "`steps` is out of range"),
            ({"search_passes": -1}, ValueError, "`search_passes` is out of range"),
            ({"loss": "margin"}, TypeError, "loss"),
        ]:
            with pytest.raises(error, match=message):
                method(**settings)


@pytest.mark.slow
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
def test_a_class_ruled_out_changes_nothing():
    for logit in [-1e9, float("-inf")]:
        for method in METHODS:
            x_adv = ATTACKS[method](with_a_class_of(logit), X, Y)
            np.testing.assert_allclose(x_adv, ATTACKS[method](net, X, Y), atol=1e-5)
            assert (decision(net, x_adv) != Y).all()


def test_nan_gradients_are_told():
    def check(method):
        def cusp(x):
            return tf.concat([tf.sqrt(x - 0.5) + 1.0, x], axis=1)

        x = np.array([[0.5], [0.7]], "float32")
        with pytest.warns(RuntimeWarning, match=r"[12] of 2 examples"):
            x_adv = ATTACKS[method](cusp, x, [0, 0])
        assert np.isfinite(x_adv).all()

    for method in [FAB]:
        check(method)


def test_no_gradient_is_refused():
    for method in METHODS:
        with pytest.raises(ValueError, match="got no gradient"):
            method()(lambda x: tf.round(x), np.full((2, 3), 0.4, "float32"), [0, 0])


RNG_DEEPFOOL = np.random.default_rng(3)


W1_DEEPFOOL, W2_DEEPFOOL = (
    RNG_DEEPFOOL.normal(size=(8, 16)) / 2,
    RNG_DEEPFOOL.normal(size=(16, 6)),
)


X_DEEPFOOL = RNG_DEEPFOOL.uniform(0.4, 0.6, (10, 8))


def network(x):
    return tf.tanh(x @ tf.constant(W1_DEEPFOOL, x.dtype)) @ tf.constant(W2_DEEPFOOL, x.dtype)


Y_DEEPFOOL = np.argmax(network(X_DEEPFOOL), 1)


def logits_and_jacobian(x):
    hidden = np.tanh(x @ W1_DEEPFOOL)
    return hidden @ W2_DEEPFOOL, (W1_DEEPFOOL * (1 - hidden**2)) @ W2_DEEPFOOL


def reference(x, norm, candidates, input_range=(-9, 9), overshoot=0.02, steps=50):
    """Algorithm 2 of the paper for one input, with the overshoot in every step.

    A step is longer by 1e-4 widths of the range, as in the authors' implementation,
    and a point counts from a margin of 1e-5 of the largest logit on.
    """
    low, high = input_range
    z, _ = logits_and_jacobian(x)
    order = np.argsort(-z)
    label, rivals = order[0], order[1 : candidates + 1]
    total, point = np.zeros_like(x), x
    for _ in range(steps):
        z, jacobian = logits_and_jacobian(point)
        margin = np.delete(z, label).max() - z[label]
        safe = 1e-5 * np.abs(z).max()
        if margin > safe:
            return point
        ways, sizes = [], []
        for k in rivals:
            w = jacobian[:, k] - jacobian[:, label]
            f = z[k] - z[label] - safe
            slope = np.linalg.norm(w, 2 if norm == "l2" else 1)
            direction = w / slope if norm == "l2" else np.sign(w)
            sizes.append(abs(f) / slope)
            ways.append(-np.sign(f) * direction * (sizes[-1] + 1e-4 * (high - low)))
        total = total + ways[int(np.argmin(sizes))]
        point = np.clip(x + (1 + overshoot) * total, low, high)
    return x


def test_numpy_reference():
    for norm, candidates in [("l2", 3), ("linf", 10)]:
        attack = DeepFool(norm=norm, candidates=candidates, search_passes=0, input_range=(-9, 9))
        expected = [reference(x, norm, candidates) for x in X_DEEPFOOL]
        np.testing.assert_allclose(attack(network, X_DEEPFOOL, Y_DEEPFOOL), expected, atol=1e-5)


def test_numpy_reference_at_the_ends_of_the_range():
    x = np.round(X_DEEPFOOL)
    y = np.argmax(network(x), 1)
    attack = DeepFool(candidates=3, search_passes=0)
    expected = np.array([reference(row, "l2", 3, (0, 1)) for row in x])
    assert ((expected == 0) | (expected == 1)).any()
    assert (np.argmax(network(expected), 1) != y).mean() > 0.5
    np.testing.assert_allclose(attack(network, x, y), expected, atol=1e-5)


def test_several_steps_are_needed():
    """Or the reference would tell nothing about the loop."""
    one = [np.abs(reference(x, "l2", 3, steps=1) - x).max() > 0 for x in X_DEEPFOOL]
    assert not all(one)


def test_linear_model():
    def check(norm):
        w = RNG_DEEPFOOL.normal(size=(30, 5)).astype("float32")
        x = RNG_DEEPFOOL.uniform(0.4, 0.6, (15, 30)).astype("float32")
        z = x @ w
        y = z.argmax(1)
        x_adv = DeepFool(norm=norm)(lambda x: x @ tf.constant(w), x, y)
        gaps, slopes = [], []
        for k in range(5):
            gaps.append(z[range(15), y] - z[:, k])
            dual = 2 if norm == "l2" else 1
            slopes.append(np.linalg.norm(w[:, k][:, None] - w[:, y], dual, axis=0))
        with np.errstate(invalid="ignore"):
            best = np.nanmin(np.array(gaps) / np.array(slopes), axis=0)
        distance = np.linalg.norm(x_adv - x, 2 if norm == "l2" else np.inf, axis=1)
        assert ((x_adv @ w).argmax(1) != y).all()
        assert (distance >= best - 1e-6).all()
        np.testing.assert_allclose(distance, best, atol=1e-4)

    for norm in ["linf"]:
        check(norm)


@pytest.mark.slow
def test_overshoot_is_taken_back():
    far = DeepFool(search_passes=0, overshoot=0.5)(network, X_DEEPFOOL, Y_DEEPFOOL) - X_DEEPFOOL
    near = DeepFool(overshoot=0.5)(network, X_DEEPFOOL, Y_DEEPFOOL) - X_DEEPFOOL
    sizes = np.linalg.norm(near, axis=1) / np.linalg.norm(far, axis=1)
    assert (sizes < 0.85).all()


def test_refused_settings_deepfool():
    for settings, message in [
        ({"norm": "l1"}, "`norm`"),
        ({"candidates": 0}, "`candidates` is out of range"),
        ({"overshoot": -0.1}, "`overshoot` is out of range"),
        ({"targeted": True}, "no targeted form: got targeted=True"),
    ]:
        with pytest.raises(ValueError, match=message):
            DeepFool(**settings)


RNG_CARLINI_WAGNER = np.random.default_rng(5)


W = RNG_CARLINI_WAGNER.normal(size=(16, 4)).astype("float32")


X_CARLINI_WAGNER = RNG_CARLINI_WAGNER.uniform(0.35, 0.65, (12, 16)).astype("float32")


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


def test_linear_model_carlini_wagner():
    """Grey and colour images and vectors, in two ranges."""

    def check(shape, high):
        z = X_CARLINI_WAGNER @ W
        y = z.argmax(1)
        x = high * X_CARLINI_WAGNER.reshape(shape)
        attack = CarliniWagner(input_range=(0.0, high), **QUICK)
        x_adv = attack(lambda x: linear(x / high), x, y)
        assert (np.argmax(linear(x_adv / high), axis=1) != y).all()
        ratio = distance(x_adv / high, X_CARLINI_WAGNER.reshape(shape)) / ways(z, y).min(1)
        assert (ratio >= 1 - 1e-4).all()
        assert (ratio <= 1.02).all()

    for shape, high in [((12, 2, 2, 4), 255.0)]:
        check(shape, high)


def test_confidence():
    z = X_CARLINI_WAGNER @ W
    y = z.argmax(1)
    x_adv = CarliniWagner(confidence=1.0, **QUICK)(linear, X_CARLINI_WAGNER, y)
    reached = x_adv @ W
    own = reached[range(12), y].copy()
    reached[range(12), y] = -np.inf
    assert (reached.max(1) - own >= 1.0 - 1e-5).all()
    ratio = distance(x_adv, X_CARLINI_WAGNER) / ways(z, y, 1.0).min(1)
    assert (ratio >= 1 - 1e-4).all()
    assert (ratio <= 1.02).all()


def test_targeted():
    """The class to reach has to beat all others: a problem in a cone of planes."""
    z = X_CARLINI_WAGNER @ W
    y, goal = z.argmax(1), np.argsort(z, axis=1)[:, 2]
    x_adv = CarliniWagner(targeted=True, **QUICK)(linear, X_CARLINI_WAGNER, goal)
    np.testing.assert_array_equal((x_adv @ W).argmax(1), goal)
    best = []
    for row, k in zip(X_CARLINI_WAGNER.astype("float64"), goal, strict=True):
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
    ratio = distance(x_adv, X_CARLINI_WAGNER) / best
    assert (ratio >= 1 - 1e-4).all()
    assert (ratio <= 1.02).all()
    already = CarliniWagner(targeted=True, **QUICK)(linear, X_CARLINI_WAGNER, y)
    np.testing.assert_array_equal(already, X_CARLINI_WAGNER)


def test_sphere():
    """Class 0 inside a sphere around the middle: straight out is closest."""

    def sphere(x):
        r2 = tf.reduce_sum((x - 0.5) ** 2, axis=1, keepdims=True)
        return 9.0 * tf.concat([0.6**2 - r2, tf.zeros_like(r2)], axis=1)

    x_adv = CarliniWagner(**QUICK)(sphere, X_CARLINI_WAGNER, np.zeros(12, int))
    best = 0.6 - np.linalg.norm(X_CARLINI_WAGNER - 0.5, axis=1)
    ratio = distance(x_adv, X_CARLINI_WAGNER) / best
    assert (ratio >= 1 - 1e-4).all()
    assert (ratio <= 1.02).all()


@pytest.mark.slow
def test_early_abort_is_nearly_as_good():
    w = RNG_CARLINI_WAGNER.normal(size=(16, 16)).astype("float32")

    def network(x):
        return tf.tanh((x - 0.5) @ tf.constant(w)) @ tf.constant(W)

    y = np.argmax(network(X_CARLINI_WAGNER), axis=1)

    def found(**settings):
        x_adv = CarliniWagner(**QUICK, **settings)(network, X_CARLINI_WAGNER, y)
        assert (np.argmax(network(x_adv), axis=1) != y).all()
        return distance(x_adv, X_CARLINI_WAGNER)

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


def test_refused_settings_carlini_wagner():
    for settings, message in [
        ({"norm": "linf"}, "`norm`"),
        ({"searches": 0}, "`searches` is out of range"),
        ({"confidence": -1.0}, "`confidence` is out of range"),
        ({"learning_rate": 0.0}, "`learning_rate` is out of range"),
        ({"initial_constant": 0.0}, "`initial_constant` is out of range"),
        ({"abort_early": 1}, "`abort_early`"),
    ]:
        with pytest.raises(ValueError, match=message):
            CarliniWagner(**settings)


def test_targets_are_needed():
    with pytest.raises(ValueError, match="needs `y`"):
        CarliniWagner(targeted=True)(linear, X_CARLINI_WAGNER)


RNG_FAB = np.random.default_rng(0)


W_FAB, B = RNG_FAB.normal(size=(12, 4)), 0.3 * RNG_FAB.normal(size=4)


def linear_fab(x):
    return x @ tf.constant(W_FAB, x.dtype) + tf.constant(B, x.dtype)


def size_fab(delta, norm):
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
        low, high = (low, t) if a @ np.minimum(room, t * speed) >= abs(gap) else (t, high)
    return size_fab(np.minimum(room, high * speed), norm)


def exact(x, y, norm):
    z, best = x @ W_FAB + B, []
    for row, label, logits in zip(x, y, z, strict=True):
        others = [k for k in range(4) if k != label]
        best.append(
            min(
                shortest(row, W_FAB[:, k] - W_FAB[:, label], logits[k] - logits[label], norm)
                for k in others
            )
        )
    return np.array(best)


@pytest.mark.parametrize(("norm", "classes"), [("linf", None), ("l2", 3), ("l1", None)])
def test_linear_model_within_the_box(norm, classes):
    x = RNG_FAB.uniform(size=(20, 12)).astype("float32")
    # Inputs at the very ends leave no room in half of the directions.
    x[:5] = np.round(x[:5])
    y = np.argmax(linear_fab(x), axis=1)
    x_adv = FAB(norm=norm, steps=20, target_classes=classes)(linear_fab, x, y)
    assert (np.argmax(linear_fab(x_adv), axis=1) != y).all()
    assert (x_adv >= 0).all()
    assert (x_adv <= 1).all()
    distance = size_fab(x_adv.astype("float64") - x, norm)
    best = exact(x.astype("float64"), y, norm)
    assert (distance >= best - 1e-6).all()
    np.testing.assert_allclose(distance, best, atol=1e-4 * (6 if norm == "l1" else 1))


def test_inside_a_sphere():
    """Class 0 inside a sphere: the way out is known in every norm."""

    def check(norm):
        radius, x = 1.3, RNG_FAB.normal(size=(16, 6))
        x *= 0.9 / size_fab(x, "l2")[:, None]

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
        distance = size_fab(attack(sphere, x, np.zeros(16, int)) - x, norm)
        assert (distance >= best - 1e-6).all()
        np.testing.assert_allclose(distance, best, rtol=2e-3)

    for norm in ("l2",):
        check(norm)


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
        found.append(size_fab(attack(two_walls, x, y) - x, "linf"))
        near = np.abs(found[-1] - 0.1) < 1e-4
        np.testing.assert_allclose(found[-1][~near], 0.3, atol=1e-4)
        assert 0 < near.sum() < 16
    assert (found[0] != found[1]).any()


@pytest.mark.slow
def test_never_farther_with_more_work():
    w1, w2 = RNG_FAB.normal(size=(20, 16)), RNG_FAB.normal(size=(16, 5))
    x = RNG_FAB.uniform(size=(12, 20))

    def network(x):
        return tf.tanh(x @ tf.constant(w1)) @ tf.constant(w2)

    y = np.argmax(network(x), 1)

    def distance(**settings):
        # Without the final search, which starts from another point after more steps.
        x_adv = FAB(search_passes=0, **settings)(network, x, y)
        assert (np.argmax(network(x_adv), 1) != y).all()
        return size_fab(x_adv - x, "linf")

    few, more = distance(steps=3), distance(steps=15)
    assert (more <= few + 1e-7).all()
    assert (more < few - 1e-5).any()
    each = distance(steps=15, target_classes=4)
    assert np.median(each / more) < 1.01


def test_step_in_numpy():
    """The mixture of both projections, without the box."""

    def check(norm):
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
        a = np.minimum(size_fab(d, norm) / (size_fab(d, norm) + size_fab(d_0, norm)), 0.25)[:, None]
        expected = (1 - a) * (x + 1.1 * d) + a * (origin + 1.1 * d_0)
        np.testing.assert_allclose(result, expected, atol=1e-9)

    for norm in NORMS:
        check(norm)


def test_refused_settings_fab():
    for settings, error, message in [
        ({"alpha_max": 1.5}, ValueError, "`alpha_max` is out of range: got 1.5"),
        ({"eta": 0.9}, ValueError, "`eta` is out of range"),
        ({"beta": 1.0}, ValueError, "`beta` is out of range: got 1"),
        ({"beta": 0}, ValueError, "`beta` is out of range"),
        ({"target_classes": 0}, ValueError, "`target_classes` is out of range"),
        ({"restarts": 1.5}, TypeError, "`restarts` is not an integer"),
        ({"targeted": True}, ValueError, "has no targeted form"),
    ]:
        with pytest.raises(error, match=message):
            FAB(**settings)
