"""A new method is a hook or two on the engine."""

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework import ops

from keras_jsigr.attacks import APGD, FGSM, MIFGSM, PGD
from keras_jsigr.attacks.search.rounding import SPACING, round_towards
from keras_jsigr.attacks.search.seeds import fold_in


class Lookahead(MIFGSM):
    """Nesterov's gradient (arXiv 1908.06281)."""

    def transform(self, x, state, seed):
        return x + self.momentum * self.step_length * state


class Noisy(PGD):
    stochastic = True

    def transform(self, x, state, seed):
        noise = tf.random.stateless_normal(tf.shape(x), seed, dtype=x.dtype)
        return x + 0.3 * noise


class Decaying(PGD):
    """Steps that shrink; the state holds the length."""

    def start_state(self, x):
        return tf.fill([tf.shape(x)[0], 1, 1, 1], self.step_length)

    def update(self, ball, iterate):
        x = iterate.x + iterate.state * ball.steepest(iterate.gradient)
        return ball.project(x), iterate.state / 2


def many(n):
    return np.random.default_rng(9).uniform(size=(n, 8, 8, 1)).astype("float32")


def test_lookahead_in_numpy():
    w = tf.constant(np.random.default_rng(1).normal(size=(4, 3)))
    x0, y = np.random.default_rng(2).uniform(0.4, 0.6, (5, 4)), np.arange(5) % 3
    targets = tf.one_hot(y, 3)
    attack = Lookahead(epsilon=0.1, steps=4, momentum=0.5)

    def network(x):
        return tf.tanh(x @ w) * 3

    result = attack.perturb(network, tf.constant(x0), targets, seed=tf.constant([0, 0]))
    x, m = x0.copy(), 0.0
    for _ in range(4):
        ahead = tf.constant(x + 0.5 * 0.025 * m)
        with tf.GradientTape() as tape:
            tape.watch(ahead)
            loss = tf.nn.softmax_cross_entropy_with_logits(targets, network(ahead))
        g = tape.gradient(loss, ahead).numpy()
        m = 0.5 * m + g / np.abs(g).mean(1, keepdims=True)
        x = np.clip(x + 0.025 * np.sign(m), x0 - 0.1, x0 + 0.1)
    np.testing.assert_allclose(result, x, atol=1e-6)


def test_random_transforms_follow_the_seed(cnn):
    x = many(5)
    settings = {"epsilon": 0.1, "steps": 3, "random_start": False}
    first = Noisy(**settings)(cnn, x)
    np.testing.assert_array_equal(first, Noisy(**settings)(cnn, x))
    assert np.abs(first - Noisy(seed=1, **settings)(cnn, x)).max() > 0.01
    Noisy(restarts=3, **settings)(cnn, x)


def test_update_and_state(cnn):
    x = many(5)
    attack = Decaying(epsilon=0.5, steps=3, step_size=0.02, random_start=False)
    moved = np.abs(attack(cnn, x) - x)
    # Length 0.02 + 0.01 + 0.005 where the sign never changed.
    assert moved.max() <= 0.035 + 1e-6
    assert (np.abs(moved - 0.035) < 1e-5).mean() > 0.5


def test_hooks_work_in_half_precision(cnn):
    x = many(3).astype("float16")
    assert Lookahead(epsilon=0.1)(cnn, x).dtype == "float16"
    assert FGSM(epsilon=0.1)(cnn, x).dtype == "float16"


def test_streams_differ():
    seed = tf.constant([1, 2])
    streams = {tuple(fold_in(seed, n).numpy()) for n in range(100)}
    assert len(streams) == 100


def test_apgd_goes_by_the_loss_where_it_is_whatever_the_model_sees(cnn):
    class Seen(APGD):
        def transform(self, x, state, seed):
            return tf.identity(x)  # another tensor with the same numbers

    x = many(6)
    plain = APGD(epsilon=0.05, steps=10)(cnn, x)
    np.testing.assert_array_equal(Seen(epsilon=0.05, steps=10)(cnn, x), plain)


def test_half_precision_leaves_nothing_behind():
    """TensorFlow never forgets a custom gradient, nor the graph that it is of."""
    x = np.full((2, 3), 0.5, "float16")
    before = len(ops.gradient_registry.list())
    FGSM(epsilon=0.1)(lambda x: x, x, [0, 1])
    assert len(ops.gradient_registry.list()) == before


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_rounding_has_the_gradient_of_a_cast(dtype):
    x = tf.constant(np.random.default_rng(0).uniform(-1, 1, 500), tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(x)
        near = round_towards(x, tf.zeros_like(x), tf.as_dtype(dtype))
    np.testing.assert_array_equal(tape.gradient(near, x), np.ones(500))
    exact = tf.cast(near, tf.float32)
    assert (np.abs(exact) <= np.abs(x)).all()
    spacing = 2.0 * SPACING[tf.as_dtype(dtype)]
    assert (np.abs(exact - x) <= spacing * np.abs(x)).all()
