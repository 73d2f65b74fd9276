"""Gradients of float16 models: neither lost below 6e-8 nor infinite above 256."""

import numpy as np
import pytest
import tensorflow as tf

from keras_jsigr.attacks import FAB, FGSM, PGD, CarliniWagner
from keras_jsigr.attacks.search.scaled_gradient import scaled_gradient

X = np.full((3, 2), 0.5, "float32")
ATTACKS = [
    FGSM(epsilon=0.25),
    PGD(epsilon=0.25, steps=4),
    FAB(epsilon=0.25, steps=5),
    CarliniWagner(epsilon=0.5, steps=20, searches=3, learning_rate=0.1),
]


def steep(x):
    """A difference of the first two logits of slope 2000, equal at 0.4."""
    t = tf.cast(x, tf.float16)[:, :1] - tf.constant(0.4, tf.float16)
    return tf.cast(tf.concat([2000.0 * t, tf.zeros_like(t)], axis=1), tf.float32)


@pytest.mark.slow
@pytest.mark.parametrize("attack", ATTACKS, ids=lambda a: a.name)
@pytest.mark.parametrize("model", [steep, tf.function(steep)], ids=["plain", "called"])
def test_steep_models_are_attacked(attack, model):
    """No warning of an infinite gradient either: it would be an error."""
    x_adv = attack(model, X, [0, 0, 0])
    assert (x_adv[:, 0] < 0.4).all()


@pytest.mark.parametrize("wrap", [lambda f: f, tf.function], ids=["eager", "graph"])
@pytest.mark.parametrize("dtype", [tf.float16, tf.bfloat16, tf.float32])
def test_steep_and_flat_examples_of_one_batch(wrap, dtype):
    slopes = [2.0**10, 2.0**-26, 3.0]

    @wrap
    def gradient(x):
        half = [[2.0**5], [2.0**-13], [1.0]], [[2.0**5], [2.0**-13], [3.0]]
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(x)
            z = tf.cast(x, dtype)
            for factor in half:
                z *= tf.constant(factor, dtype)
            z = tf.cast(z, tf.float32)
        return scaled_gradient(tape, z, x, tf.ones_like(z))

    result = gradient(tf.ones((3, 1)))
    np.testing.assert_array_equal(result, np.reshape(slopes, (3, 1)))


def test_no_choice_between_gradients_without_float16():
    def operations(dtype):
        @tf.function
        def gradient(x):
            with tf.GradientTape(persistent=True) as tape:
                tape.watch(x)
                z = tf.cast(3.0 * tf.cast(x, dtype), tf.float32)
            return scaled_gradient(tape, z, x, tf.ones_like(z))

        graph = gradient.get_concrete_function(tf.ones((3, 1))).graph
        return {op.type for op in graph.get_operations()}

    choice = {"If", "StatelessIf", "IsFinite"}
    assert operations(tf.float16) & choice
    assert not operations(tf.float32) & choice
    assert not operations(tf.bfloat16) & choice
