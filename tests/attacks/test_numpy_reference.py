"""Equality with plain NumPy loops over an analytic gradient, in float64."""

import numpy as np
import pytest
import tensorflow as tf

from keras_jsigr.attacks import FGSM, MIFGSM, PGD

RNG = np.random.default_rng(2)
W1, W2 = RNG.normal(size=(5, 7)), RNG.normal(size=(7, 3))
X, Y = RNG.uniform(size=(8, 5)), RNG.integers(0, 3, 8)
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
    delta = x - X
    if norm == "linf":
        delta = np.clip(delta, -EPSILON, EPSILON)
    else:
        length = np.linalg.norm(delta, axis=1, keepdims=True)
        delta *= np.minimum(1, EPSILON / np.maximum(length, 1e-300))
    return np.clip(X + delta, 0, 1)


def reference(norm, steps, step_size, momentum=None):
    x, m = X.copy(), np.zeros_like(X)
    for _ in range(steps):
        g = cross_entropy_gradient(x)
        if momentum is not None:
            m = g = momentum * m + g / np.abs(g).mean(1, keepdims=True)
        if norm == "linf":
            g = np.sign(g)
        else:
            g = g / np.linalg.norm(g, axis=1, keepdims=True)
        x = project(x + step_size * g, norm)
    return x


def still_right(x):
    return np.argmax(network(x), axis=1) == Y


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize(
    ("attack", "steps", "step_size", "momentum"),
    [
        (FGSM, 1, EPSILON, None),
        (PGD, 7, 2.5 * EPSILON / 7, None),
        (MIFGSM, 7, EPSILON / 7, 0.8),
    ],
)
def test_last_iterate(norm, attack, steps, step_size, momentum):
    settings = {} if attack is FGSM else {"steps": steps}
    settings |= {} if momentum is None else {"momentum": momentum}
    method = attack(epsilon=EPSILON, norm=norm, random_start=False, **settings)
    targets = tf.one_hot(Y, 3)
    x_adv = method.perturb(network, tf.constant(X), targets, seed=tf.constant([0, 0]))
    expected = reference(norm, steps, step_size, momentum)
    np.testing.assert_allclose(x_adv, expected, atol=1e-6)
    # A call may only differ where it remembered an earlier success.
    called = method(network, X, Y)
    differs = np.abs(called - expected).max(axis=1) > 1e-6
    assert still_right(expected)[differs].all()
    assert not still_right(called)[differs].any()
