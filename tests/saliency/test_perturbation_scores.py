import numpy as np
import pytest
import tensorflow as tf
from scipy.special import expit, rel_entr, softmax

from keras_jsigr.saliency import (
    change_score,
    probability_drop,
    sarfa,
    squared_logits,
    target_probability,
)


def numpy_sarfa(before, after, action):
    """As the authors' code does, with probabilities."""
    p, q = softmax(before), softmax(after)
    drop = p[action] - q[action]
    if drop <= 0:
        return 0.0
    p, q = np.delete(p, action), np.delete(q, action)
    k = 1.0 / (1.0 + rel_entr(p / p.sum(), q / q.sum()).sum())
    return 2 * k * drop / (k + drop)


def test_sarfa_equals_numpy(rng):
    before, after = rng.normal(0, 2, (2, 200, 5))
    labels = rng.integers(0, 5, 200)
    expected = [numpy_sarfa(*row) for row in zip(before, after, labels, strict=True)]
    got = sarfa(before, after, np.eye(5)[labels])
    np.testing.assert_allclose(got, expected, atol=2e-6)
    assert 0 < np.count_nonzero(expected) < 200


def test_sarfa_at_the_edges():
    y = [[1.0, 0.0, 0.0]]
    assert float(sarfa([[1.0, 2.0, 3.0]], [[1.0, 2.0, 3.0]], y)[0]) == 0.0
    extreme = sarfa([[900.0, 800.0, -900.0]], [[-900.0, -900.0, 900.0]], y)
    assert np.isfinite(extreme).all()
    # Two classes: nothing but the drop matters, K = 1.
    drop = float(probability_drop([[1.0, 0.0]], [[0.0, 0.0]], [[1.0, 0.0]])[0])
    got = float(sarfa([[1.0, 0.0]], [[0.0, 0.0]], [[1.0, 0.0]])[0])
    assert got == pytest.approx(2 * drop / (1 + drop), abs=1e-6)


@pytest.mark.parametrize("score", ["squared_logits", "probability_drop", "sarfa"])
def test_one_logit_is_two_columns(rng, score):
    z, other = rng.normal(size=(2, 9, 1)).astype("float32")
    y = rng.integers(0, 2, (9, 1)).astype("float32")
    pad = lambda v: np.concatenate([np.zeros_like(v), v], 1)  # noqa: E731
    both = np.concatenate([1 - y, y], 1)
    one = change_score(tf.constant(z), tf.constant(other), y, score)
    two = change_score(tf.constant(pad(z)), tf.constant(pad(other)), both, score)
    np.testing.assert_allclose(one, two, atol=1e-6)


def test_probability_drop_equals_numpy(rng):
    before, after = rng.normal(0, 2, (2, 50, 4))
    y = np.eye(4)[rng.integers(0, 4, 50)]
    drop = ((softmax(before, -1) - softmax(after, -1)) * y).sum(-1)
    got = probability_drop(before, after, y)
    np.testing.assert_allclose(got, np.maximum(drop, 0), atol=1e-6)


def test_probability_drop_of_independent_classes():
    before, after = np.array([[40.0, 40.0]]), np.array([[0.0, 40.0]])
    y = np.array([[1.0, 1.0]])
    assert float(probability_drop(before, after, y, "sigmoid")[0]) == 0.25


@pytest.mark.parametrize("classes", [1, 3])
def test_soft_targets_weigh_presence_and_absence(rng, classes):
    z = rng.normal(0, 2, (5, classes)).astype("float32")
    soft = rng.random((5, classes)).astype("float32")
    kind = "sigmoid"
    present, absent = (target_probability(z, t * np.ones_like(z), kind) for t in (1, 0))
    np.testing.assert_allclose(present + absent, 1.0, atol=1e-6)
    expected = (soft * expit(z) + (1 - soft) * expit(-z)).mean(-1)
    np.testing.assert_allclose(target_probability(z, soft, kind), expected, rtol=1e-5)


@pytest.mark.parametrize("score", ["squared_logits", "probability_drop", "sarfa"])
def test_scores_are_float32_without_gradient(score):
    z = tf.constant([[1.0, 2.0, 0.5]], tf.float16)
    with tf.GradientTape() as tape:
        tape.watch(z)
        value = change_score(z, z * 0.5, [[0.0, 1.0, 0.0]], score)
    assert value.dtype == tf.float32
    assert tape.gradient(value, z) is None


def test_squared_logits_shift():
    z = tf.constant([[1.0, 2.0]])
    assert float(squared_logits(z, z + 1.0)[0]) == 1.0


def test_error_messages():
    z = tf.ones((1, 3))
    with pytest.raises(ValueError, match="Unknown `score`: got 'l2'"):
        change_score(z, z, None, "l2")
    with pytest.raises(ValueError, match="Got no targets"):
        change_score(z, z, None, "sarfa")
    with pytest.raises(ValueError, match="independent classes"):
        change_score(z, z, z, "sarfa", "sigmoid")
