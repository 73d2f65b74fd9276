"""The losses, their gradients and the decision, against closed forms."""

import numpy as np
import pytest
import tensorflow as tf

from keras_jsigr.attacks.calls.predictions import classified_rightly
from keras_jsigr.attacks.objectives.losses import (
    ascent_loss,
    attack_loss,
    misclassified,
)
from keras_jsigr.core.scores import class_score

RNG = np.random.default_rng(4)
Z = RNG.normal(size=(20, 4)).astype("float32") * 3
Y = RNG.integers(0, 4, 20)
TARGETS = tf.one_hot(Y, 4)


def gradient(function, z, targets, loss):
    z = tf.constant(z)
    with tf.GradientTape() as tape:
        tape.watch(z)
        value = function(z, targets, loss)
    return tape.gradient(value, z).numpy()


def test_values():
    z = Z.astype("float64")
    ce = np.log(np.exp(z).sum(1)) - z[np.arange(20), Y]
    others = np.where(np.eye(4)[Y] > 0, -np.inf, z).max(1)
    np.testing.assert_allclose(attack_loss(Z, TARGETS), ce, rtol=1e-4)
    margin = attack_loss(Z, TARGETS, "margin")
    np.testing.assert_allclose(margin, others - z[np.arange(20), Y], rtol=1e-5)
    np.testing.assert_array_equal(margin > 0, misclassified(Z, TARGETS))


def test_ascent_is_parallel_to_cross_entropy():
    a = gradient(ascent_loss, Z, TARGETS, "cross_entropy")
    b = gradient(attack_loss, Z, TARGETS, "cross_entropy")
    a, b = (g / np.linalg.norm(g, axis=1, keepdims=True) for g in (a, b))
    np.testing.assert_allclose(a, b, atol=1e-5)


def test_soft_targets_get_plain_cross_entropy():
    soft = tf.constant(np.full((20, 4), 0.25, "float32"))
    a = gradient(ascent_loss, Z, soft, "cross_entropy")
    b = gradient(attack_loss, Z, soft, "cross_entropy")
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("loss", ["cross_entropy", "margin"])
def test_one_sigmoid_unit(loss):
    z, targets = tf.constant([[2.0], [-1.0]]), tf.constant([[1.0], [1.0]])
    assert misclassified(z, targets).numpy().tolist() == [False, True]
    pair = tf.concat([tf.zeros_like(z), z], axis=1)
    both = attack_loss(pair, tf.concat([1 - targets, targets], axis=1), loss)
    np.testing.assert_allclose(attack_loss(z, targets, loss), both, rtol=1e-6)
    assert (gradient(ascent_loss, z, targets, loss) < 0).all()


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize("label", [0, 1, 2])
def test_a_row_that_names_no_class_is_wrong_whatever_the_label(label):
    z = tf.constant([[NAN, 1.0, 0.0], [0.0, 1.0, NAN], [0.0, INF, 1.0], [-INF] * 3])
    assert misclassified(z, tf.one_hot([label] * 4, 3)).numpy().all()
    assert not classified_rightly(z.numpy(), [label] * 4).any()


def test_a_class_ruled_out_leaves_an_answer():
    z, rows = tf.constant([[2.0, -INF, 1.0]] * 3), tf.eye(3)
    assert misclassified(z, rows).numpy().tolist() == [False, True, True]
    assert classified_rightly(z.numpy(), [0, 1, 2]).tolist() == [True, False, False]


@pytest.mark.parametrize("function", [attack_loss, ascent_loss])
@pytest.mark.parametrize("loss", ["cross_entropy", "margin", "dlr"])
@pytest.mark.parametrize("soft", [False, True])
def test_a_class_ruled_out_changes_no_loss(function, loss, soft):
    rows = 0.5 * TARGETS + 0.125 if soft else TARGETS
    wider = tf.pad(rows, [[0, 0], [0, 1]])
    z = np.concatenate([Z, np.full((20, 1), -INF, "float32")], axis=1)
    np.testing.assert_allclose(function(z, wider, loss), function(Z, rows, loss))
    expected = gradient(function, Z, rows, loss)
    actual = gradient(function, z, wider, loss)
    np.testing.assert_allclose(actual[:, :4], expected, rtol=1e-6)
    np.testing.assert_array_equal(actual[:, 4], 0.0)


def test_a_class_ruled_out_changes_no_log_odds():
    z = np.concatenate([Z, np.full((20, 1), -INF, "float32")], axis=1)
    expected = class_score(Z, TARGETS, "margin")
    actual = class_score(z, tf.pad(TARGETS, [[0, 0], [0, 1]]), "margin")
    np.testing.assert_allclose(actual, expected, rtol=1e-6)


def test_one_sigmoid_unit_without_a_number():
    z, targets = tf.constant([[NAN], [NAN], [-INF]]), tf.constant([[0.0], [1.0], [0.0]])
    assert misclassified(z, targets).numpy().tolist() == [True, True, False]
