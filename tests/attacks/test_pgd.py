"""Plain gradient steps in closed form and in NumPy; batches in parallel."""

import threading
import time

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_jsigr.attacks import BIM, FGSM, MIFGSM, PGD, Square
from keras_jsigr.attacks import base as batches
from keras_jsigr.core.batching import is_stateful, parallel_batches, workers_for


def test_steps_just_reach_the_edge():
    x = np.full((1, 3), 0.5, "float32")
    x_adv = BIM(epsilon=0.1, steps=4)(lambda x: x[:, :2], x, [0])
    np.testing.assert_allclose(x_adv - x, [[-0.1, 0.1, 0.0]], atol=1e-6)


RNG = np.random.default_rng(1)


W = RNG.normal(size=(6, 2)).astype("float32")


X = RNG.uniform(0.3, 0.7, (9, 6)).astype("float32")


METHODS = [FGSM, PGD, MIFGSM]


def linear(x):
    return tf.linalg.matmul(x, tf.constant(W, x.dtype))


def downhill(y):
    """The direction that lowers the margin of class y: w_other - w_y."""
    return np.stack([W[:, 1 - k] - W[:, k] for k in y])


def test_linf():
    for method in METHODS:
        for loss in ["margin" if method is PGD else "cross_entropy"]:
            y = np.arange(9) % 2
            x_adv = method(epsilon=0.1, loss=loss)(linear, X, y)
            np.testing.assert_allclose(x_adv, X + 0.1 * np.sign(downhill(y)), atol=1e-5)


def test_l2():
    for method in METHODS:
        for loss in ["cross_entropy" if method is PGD else "margin"]:
            y = np.arange(9) % 2
            # Along the sphere PGD closes in on the optimum by a factor of two per step.
            settings = {"step_size": 0.2, "steps": 40} if method is PGD else {}
            x_adv = method(epsilon=0.2, norm="l2", loss=loss, **settings)(linear, X, y)
            w = downhill(y)
            best = X + 0.2 * w / np.linalg.norm(w, axis=1, keepdims=True)
            np.testing.assert_allclose(x_adv, best, atol=1e-5)


def test_box_in_other_units():
    for method in (PGD,):
        y = np.arange(9) % 2
        attack = method(epsilon=100.0, input_range=(0.0, 255.0))
        x_adv = attack(linear, 255 * X, y)
        best = np.clip(255 * X + 100 * np.sign(downhill(y)), 0, 255)
        np.testing.assert_allclose(x_adv, best, atol=1e-4)


def test_targeted_goes_the_other_way():
    for method in (PGD,):
        y = np.arange(9) % 2
        x_adv = method(epsilon=0.1, targeted=True)(linear, X, y)
        np.testing.assert_allclose(x_adv, X - 0.1 * np.sign(downhill(y)), atol=1e-5)


def test_confident_model_is_no_robust_model():
    """Cross entropy in float32 has no gradient here; its direction still exists."""

    def confident(x):
        return 1e4 * linear(x)

    x_adv = PGD(epsilon=0.5, random_start=False)(confident, X)
    y = np.argmax(linear(X), axis=-1)
    best = np.clip(X + 0.5 * np.sign(downhill(y)), 0, 1)
    np.testing.assert_allclose(x_adv, best, atol=1e-5)


def test_zero_gradient_stays_put():
    def check(norm):
        def constant(x):
            return linear(x) * 0.0

        for method in (FGSM, MIFGSM):
            attack = method(epsilon=0.1, norm=norm, random_start=False)
            np.testing.assert_array_equal(attack(constant, X, np.zeros(9, int)), X)

    for norm in ["linf", "l2"]:
        check(norm)


RNG_NUMPY_REFERENCE = np.random.default_rng(2)


W1, W2 = (
    RNG_NUMPY_REFERENCE.normal(size=(5, 7)),
    RNG_NUMPY_REFERENCE.normal(size=(7, 3)),
)


X_NUMPY_REFERENCE, Y = (
    RNG_NUMPY_REFERENCE.uniform(size=(8, 5)),
    RNG_NUMPY_REFERENCE.integers(0, 3, 8),
)


EPSILON = 0.15


def network(x):
    return tf.tanh(x @ tf.constant(W1)) @ tf.constant(W2)


def cross_entropy_gradient(x):
    hidden = np.tanh(x @ W1)
    z = hidden @ W2
    p = np.exp(z - z.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    return ((p - np.eye(3)[Y]) @ W2.T * (1 - hidden**2)) @ W1.T


def project(x, norm):
    delta = x - X_NUMPY_REFERENCE
    if norm == "linf":
        delta = np.clip(delta, -EPSILON, EPSILON)
    else:
        length = np.linalg.norm(delta, axis=1, keepdims=True)
        delta *= np.minimum(1, EPSILON / np.maximum(length, 1e-300))
    return np.clip(X_NUMPY_REFERENCE + delta, 0, 1)


def reference(norm, steps, step_size, momentum=None):
    x, m = X_NUMPY_REFERENCE.copy(), np.zeros_like(X_NUMPY_REFERENCE)
    for _ in range(steps):
        g = cross_entropy_gradient(x)
        if momentum is not None:
            m = g = momentum * m + g / np.abs(g).mean(1, keepdims=True)
        g = np.sign(g) if norm == "linf" else g / np.linalg.norm(g, axis=1, keepdims=True)
        x = project(x + step_size * g, norm)
    return x


def still_right(x):
    return np.argmax(network(x), axis=1) == Y


def test_last_iterate():
    for norm in ["linf", "l2"]:
        for attack, steps, step_size, momentum in [
            (FGSM, 1, EPSILON, None),
            (PGD, 7, 2.5 * EPSILON / 7, None),
            (MIFGSM, 7, EPSILON / 7, 0.8),
        ]:
            settings = {} if attack is FGSM else {"steps": steps}
            settings |= {} if momentum is None else {"momentum": momentum}
            method = attack(epsilon=EPSILON, norm=norm, random_start=False, **settings)
            targets = tf.one_hot(Y, 3)
            x_adv = method.perturb(
                network,
                tf.constant(X_NUMPY_REFERENCE),
                targets,
                seed=tf.constant([0, 0]),
            )
            expected = reference(norm, steps, step_size, momentum)
            np.testing.assert_allclose(x_adv, expected, atol=1e-6)
            # A call may only differ where it remembered an earlier success.
            called = method(network, X_NUMPY_REFERENCE, Y)
            differs = np.abs(called - expected).max(axis=1) > 1e-6
            assert still_right(expected)[differs].all()
            assert not still_right(called)[differs].any()


X_RADII = np.random.default_rng(0).uniform(size=(9, 5)).astype("float32")


Y_RADII = np.arange(9) % 5


RADII = [0.0, 0.05, 0.2]


def identity(x):
    return x


@pytest.mark.slow
def test_a_list_equals_single_calls():
    for dtype in ["float16", "float32", "float64"]:
        for norm in ["linf", "l2"]:
            attack = PGD(epsilon=0.1, norm=norm, steps=3, batch_size=4)
            x = X_RADII.astype(dtype)
            together = attack(identity, x, Y_RADII, epsilons=RADII)
            single = PGD(epsilon=0.3, norm=norm, steps=3, batch_size=4)
            for epsilon, x_adv in zip(RADII, together, strict=True):
                np.testing.assert_array_equal(x_adv, single.at(epsilon)(identity, x, Y_RADII))
                assert x_adv.dtype == dtype


def test_at_keeps_the_other_settings():
    attack = MIFGSM(epsilon=0.1, steps=7, momentum=0.5, norm="l2")
    moved = attack.at(0.2)
    assert moved == MIFGSM(epsilon=0.2, steps=7, momentum=0.5, norm="l2")
    assert attack.epsilon == 0.1


def test_a_bad_radius_is_refused():
    with pytest.raises(ValueError, match="epsilon"):
        FGSM(epsilon=0.1)(lambda x: x, X_RADII, Y_RADII, epsilons=[0.1, -1.0])
    with pytest.raises(ValueError, match="epsilon"):
        FGSM(epsilon=float("inf"))


def concrete(function, *args):
    return tf.function(function, autograph=False).get_concrete_function(*args)


def in_a_loop(body):
    return lambda x: tf.while_loop(lambda i, _: i < 3, lambda i, v: (i + 1, body(v)), (0, x))[1]


def test_what_depends_on_order():
    def check(nest):
        x = tf.zeros((2, 2))
        counter = tf.Variable(0.0)
        weight = tf.Variable(tf.ones((2, 2)))
        generator = tf.random.Generator.from_seed(0)
        seeds = keras.random.SeedGenerator(0)

        def count(v):
            return v + counter.assign_add(1.0)

        ordered = [
            count,
            lambda v: v + tf.random.normal((2, 2)),
            lambda v: v + tf.random.truncated_normal((2, 2)),
            lambda v: v + generator.normal((2, 2)),
            lambda v: v + keras.random.normal((2, 2), seed=seeds),
            lambda v: tf.ensure_shape(tf.numpy_function(np.abs, [v], tf.float32), (2, 2)),
            lambda v: tf.ensure_shape(tf.py_function(tf.abs, [v], tf.float32), (2, 2)),
        ]
        free = [
            lambda v: v @ weight,
            lambda v: v + tf.random.stateless_normal((2, 2), [0, 1]),
            lambda v: tf.cond(tf.reduce_sum(v) > 0, lambda: v @ weight, lambda: v),
        ]
        assert [is_stateful(concrete(nest(f), x)) for f in ordered] == [True] * 7
        assert [is_stateful(concrete(nest(f), x)) for f in free] == [False] * 3

    for nest in [lambda f: f, in_a_loop, tf.function]:
        check(nest)


def test_the_same_with_any_number_of_workers(monkeypatch):
    keras.utils.set_random_seed(0)
    net = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3)])
    x = np.random.default_rng(0).random((23, 6), "float32")
    y = np.arange(23) % 3
    used = []

    def spy(call, count, batch_size, workers):
        used.append(workers)
        return parallel_batches(call, count, batch_size, workers)

    monkeypatch.setattr(batches, "parallel_batches", spy)
    for attack in (
        PGD(epsilon=0.3, steps=4, restarts=2, batch_size=3),
        Square(epsilon=0.3, queries=20, batch_size=3),
    ):
        results = []
        for workers in (1, 2, 4):
            monkeypatch.setattr(batches, "workers_for", lambda values, w=workers: w)
            results.append(attack(net, x, y))
        np.testing.assert_array_equal(results[0], results[1])
        np.testing.assert_array_equal(results[0], results[2])
    assert used == [1, 2, 4] * 2


def test_a_model_with_hidden_state_is_asked_in_order(monkeypatch):
    monkeypatch.setattr(batches, "workers_for", lambda values: 4)
    used = []

    def spy(call, count, batch_size, workers):
        used.append(workers)
        return parallel_batches(call, count, batch_size, workers)

    monkeypatch.setattr(batches, "parallel_batches", spy)
    x = np.full((8, 2), 0.5, "float32")
    noisy = lambda v: v + 1e-3 * tf.random.normal(tf.shape(v))  # noqa: E731
    runs = []
    for _ in range(2):
        tf.random.set_seed(3)
        runs.append(PGD(epsilon=0.1, steps=3, batch_size=2)(noisy, x, [0] * 8))
    np.testing.assert_array_equal(runs[0], runs[1])
    assert used == [1, 1]


def test_results_come_in_order_and_several_run_at_once():
    meet = threading.Barrier(3, timeout=20)

    def call(rows):
        number = rows.start // 2
        if number < 3:
            meet.wait()  # Passes only if three calls are under way together.
        time.sleep(0.01 * (3 - number % 3))
        return number

    assert list(parallel_batches(call, 13, 2, workers=3)) == list(range(7))


def test_the_first_error_drops_what_has_not_begun():
    begun = []

    def call(rows):
        number = rows.start
        begun.append(number)
        if number == 0:
            raise RuntimeError("broken")
        time.sleep(0.05)
        return number

    with pytest.raises(RuntimeError, match="broken"):
        list(parallel_batches(call, 100, 1, workers=2))
    assert len(begun) < 20


def test_large_batches_and_strategies_go_alone(two_devices_scope):
    assert workers_for(3_000_000) == 1
    assert 1 <= workers_for(1000) <= 4
    with two_devices_scope:
        assert workers_for(1000) == 1


@pytest.fixture
def two_devices_scope():
    return tf.distribute.MirroredStrategy(
        ["CPU:0"], cross_device_ops=tf.distribute.ReductionToOneDevice()
    ).scope()
