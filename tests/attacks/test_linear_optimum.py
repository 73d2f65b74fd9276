"""On a linear model the optimum is known: every attack has to reach it."""

import numpy as np
import pytest
import tensorflow as tf

from keras_jsigr.attacks import FGSM, MIFGSM, PGD

RNG = np.random.default_rng(1)
W = RNG.normal(size=(6, 2)).astype("float32")
X = RNG.uniform(0.3, 0.7, (9, 6)).astype("float32")
METHODS = [FGSM, PGD, MIFGSM]


def linear(x):
    return tf.linalg.matmul(x, tf.constant(W, x.dtype))


def downhill(y):
    """The direction that lowers the margin of class y: w_other - w_y."""
    return np.stack([W[:, 1 - k] - W[:, k] for k in y])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("loss", ["cross_entropy", "margin"])
def test_linf(method, loss):
    y = np.arange(9) % 2
    x_adv = method(epsilon=0.1, loss=loss)(linear, X, y)
    np.testing.assert_allclose(x_adv, X + 0.1 * np.sign(downhill(y)), atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("loss", ["cross_entropy", "margin"])
def test_l2(method, loss):
    y = np.arange(9) % 2
    # Along the sphere PGD closes in on the optimum by a factor of two per step.
    settings = {"step_size": 0.2, "steps": 40} if method is PGD else {}
    x_adv = method(epsilon=0.2, norm="l2", loss=loss, **settings)(linear, X, y)
    w = downhill(y)
    best = X + 0.2 * w / np.linalg.norm(w, axis=1, keepdims=True)
    np.testing.assert_allclose(x_adv, best, atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_box_in_other_units(method):
    y = np.arange(9) % 2
    attack = method(epsilon=100.0, input_range=(0.0, 255.0))
    x_adv = attack(linear, 255 * X, y)
    best = np.clip(255 * X + 100 * np.sign(downhill(y)), 0, 255)
    np.testing.assert_allclose(x_adv, best, atol=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_targeted_goes_the_other_way(method):
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


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_zero_gradient_stays_put(norm):
    def constant(x):
        return linear(x) * 0.0

    for method in METHODS:
        attack = method(epsilon=0.1, norm=norm, random_start=False)
        np.testing.assert_array_equal(attack(constant, X, np.zeros(9, int)), X)
