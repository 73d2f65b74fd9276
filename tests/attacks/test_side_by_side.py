"""Batches computed side by side give what they give one after the other."""

import threading
import time

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_jsigr.attacks import PGD, Square
from keras_jsigr.attacks.calls import batches
from keras_jsigr.attacks.calls.side_by_side import (
    order_matters,
    side_by_side,
    workers_for,
)


def concrete(function, *args):
    return tf.function(function, autograph=False).get_concrete_function(*args)


def in_a_loop(body):
    return lambda x: tf.while_loop(
        lambda i, _: i < 3, lambda i, v: (i + 1, body(v)), (0, x)
    )[1]


@pytest.mark.parametrize("nest", [lambda f: f, in_a_loop, tf.function])
def test_what_depends_on_order(nest):
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
    assert [order_matters(concrete(nest(f), x)) for f in ordered] == [True] * 7
    assert [order_matters(concrete(nest(f), x)) for f in free] == [False] * 3


def test_the_same_with_any_number_of_workers(monkeypatch):
    keras.utils.set_random_seed(0)
    net = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3)])
    x = np.random.default_rng(0).random((23, 6), "float32")
    y = np.arange(23) % 3
    used = []

    def spy(call, count, workers):
        used.append(workers)
        return side_by_side(call, count, workers)

    monkeypatch.setattr(batches, "side_by_side", spy)
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

    def spy(call, count, workers):
        used.append(workers)
        return side_by_side(call, count, workers)

    monkeypatch.setattr(batches, "side_by_side", spy)
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

    def call(number):
        if number < 3:
            meet.wait()  # Passes only if three calls are under way together.
        time.sleep(0.01 * (3 - number % 3))
        return number

    assert list(side_by_side(call, 7, workers=3)) == list(range(7))


def test_the_first_error_drops_what_has_not_begun():
    begun = []

    def call(number):
        begun.append(number)
        if number == 0:
            raise RuntimeError("broken")
        time.sleep(0.05)
        return number

    with pytest.raises(RuntimeError, match="broken"):
        list(side_by_side(call, 100, workers=2))
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
