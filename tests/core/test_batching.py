"""Programs: compiled once, kept as long as they are of use, and run batch by batch."""

import copy
import gc
import itertools
import pickle
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_jsigr.attacks import FGSM, PGD, CleverHansAttack
from keras_jsigr.core.batching import (
    BatchedExplainer,
    BatchedFunction,
    CompiledCache,
    chunked_sum,
    copies_at_once,
    parallel_batches,
    predict_logits,
)

X = np.random.default_rng(0).uniform(size=(7, 3)).astype("float32")


class Counted:
    """A model that counts how often Python runs it."""

    runs = 0

    def __call__(self, x):
        self.runs += 1
        return 2.0 * x


def spec(logits_fn, probe, classes):
    return logits_fn, [tf.TensorSpec((None, *probe.shape[1:]), probe.dtype)]


def dense(activation=None):
    keras.utils.set_random_seed(0)
    layers = keras.layers
    return keras.Sequential([keras.Input((3,)), layers.Dense(4, activation), layers.Dense(3)])


def test_equal_settings_share_a_program_and_others_do_not():
    model = Counted()
    PGD(0.1, steps=2)(model, X)
    runs = model.runs
    PGD(0.2, steps=2, seed=5, batch_size=2, verbose=0)(model, X)
    assert model.runs == runs
    for attack in (PGD(0.1, steps=3), PGD(0.1, steps=2, norm=2), FGSM(0.1)):
        before = model.runs
        attack(model, X)
        assert model.runs > before


def test_settings_that_cannot_be_compared():
    class Weighted(PGD):
        weights = None

        def objective(self, logits, context):
            return tf.reduce_sum(logits * self.weights, axis=-1)

    results = []
    for sign in (1.0, -1.0):
        attack = Weighted(0.1)
        object.__setattr__(attack, "weights", np.array([sign, 0.0, 0.0], "float32"))
        results.append(attack(Counted.__call__.__get__(Counted()), X))
    assert (results[0] != results[1]).any()


def test_the_programs_used_last_are_kept():
    cache, model, probe = CompiledCache(size=2), Counted(), tf.constant(X)
    first = cache.get("a", spec, model, probe)
    cache.get("b", spec, model, probe)
    assert cache.get("a", spec, model, probe) is first
    cache.get("c", spec, model, probe)
    assert cache.get("a", spec, model, probe) is first
    runs = model.runs
    cache.get("b", spec, model, probe)
    assert model.runs > runs
    cache.forget(model)
    assert cache.get("a", spec, model, probe) is not first
    assert pickle.loads(pickle.dumps(copy.copy(cache))).get("a", spec, model, probe)


def test_a_model_whose_layers_changed_is_compiled_again():
    model, x = dense("relu"), X - 0.5
    before = predict_logits(model, x)
    model.layers[0].activation = keras.activations.linear
    after = predict_logits(model, x)
    np.testing.assert_allclose(after, model.predict(x, verbose=0), atol=1e-6)
    assert (before != after).any()


def test_models_are_not_kept_alive():
    model = dense()
    FGSM(0.1)(model, X)
    predict_logits(model, X)
    dead = weakref.ref(model)
    del model
    gc.collect()
    assert dead() is None


def test_one_cache_for_many_threads():
    model, cache, probe = Counted(), CompiledCache(), tf.constant(X)
    gate = threading.Barrier(8)

    def ask(number):
        gate.wait()
        program = cache.get(f"{number % 2}", spec, model, probe)
        return program, program.run(tf.constant(X)).numpy()

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(ask, range(8)))
    assert len({id(program) for program, _ in found}) == 2
    for _, logits in found:
        np.testing.assert_allclose(logits, 2.0 * X)


def test_cleverhans_is_the_same_for_other_threads():
    module = pytest.importorskip("cleverhans.tf2.attacks.projected_gradient_descent")
    plain, seen = dict(vars(module)), []

    def watched(x):
        seen.append(dict(vars(module)) == plain)
        return 2.0 * x

    CleverHansAttack(0.1, random_start=True)(watched, X)
    assert seen
    assert all(seen)


def test_functions_of_several_columns():
    traces = []

    def product(a, b):
        traces.append(1)
        return a * b

    times = BatchedFunction(product, 2)
    for n in (7, 1, 0):
        result = times(X[:n], X[:n])
        assert isinstance(result, np.ndarray)
        np.testing.assert_array_equal(result, X[:n] ** 2)
    assert len(traces) == 1
    assert tf.is_tensor(times(tf.constant(X), X))
    explain = BatchedExplainer(lambda x, y: x * tf.cast(y[:, None], x.dtype), 2, 3)
    np.testing.assert_array_equal(explain(X, np.ones(7, int)), X)
    with pytest.raises(ValueError, match="expected class indices"):
        explain(X, np.full(7, 3))


def test_rows_of_each_batch():
    rows = list(parallel_batches(lambda rows: rows, 7, 3))
    assert [X[part].shape[0] for part in rows] == [3, 3, 1]
    assert list(parallel_batches(lambda rows: rows, 0, 3)) == []


def test_sums_in_chunks():
    terms = tf.constant(np.random.default_rng(1).normal(size=(7, 3, 2)))

    def part(first, size):
        return tf.reduce_sum(terms[first : first + size], axis=0)

    for count, chunk in itertools.product((1, 2, 7), (1, 3, 9)):
        total = tf.function(chunked_sum, autograph=False)(count, chunk, part, terms[0])
        np.testing.assert_allclose(total, terms.numpy()[:count].sum(0), atol=1e-12)


def test_copies_at_once():
    x = tf.zeros((128, 28, 28, 1))
    assert int(copies_at_once(x)) == 5
    assert int(copies_at_once(x, 256)) == 2
    assert int(copies_at_once(x, 1)) == 1
