"""Class scores against closed forms in NumPy and differences in float64."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_jsigr.core.scores import class_score, class_targets, predicted_targets

B, C = 5, 4


def log_softmax(z):
    z = z - z.max(1, keepdims=True)
    return z - np.log(np.exp(z).sum(1, keepdims=True))


def log_sigmoid(z):
    return -np.log1p(np.exp(-z))


def softmax_score(z, t, score):
    if score == "log_prob":
        return (t * log_softmax(z)).sum(1)
    if score == "logit":
        return (t * z).sum(1)
    y, rows = t.argmax(1), np.arange(len(z))
    others = np.stack([np.delete(np.exp(row), k) for row, k in zip(z, y, strict=True)])
    return z[rows, y] - np.log(others.sum(1))


def sigmoid_score(z, t, score):
    signed = np.where(t > 0.5, z, -z)
    return (log_sigmoid(signed) if score == "log_prob" else signed).sum(1)


@pytest.fixture
def z(rng):
    return rng.standard_normal((B, C)) * 2


@pytest.mark.parametrize("score", ["log_prob", "margin", "logit"])
def test_softmax_closed_forms(z, rng, score):
    t = np.eye(C)[rng.integers(0, C, B)]
    value = class_score(tf.constant(z, tf.float32), tf.constant(t, tf.float32), score)
    np.testing.assert_allclose(value, softmax_score(z, t, score), rtol=2e-5, atol=1e-5)


def test_the_gradient_of_log_prob_is_that_of_the_margin_where_unsure(z, rng):
    z, y = tf.constant(z, tf.float32), rng.integers(0, C, B)
    t = class_targets(y, z)
    gradients = {}
    for score in ("log_prob", "margin"):
        with tf.GradientTape() as tape:
            tape.watch(z)
            value = class_score(z, t, score)
        gradients[score] = tape.gradient(value, z).numpy()
    unsure = 1.0 - np.exp(log_softmax(z.numpy()))[np.arange(B), y, None]
    np.testing.assert_allclose(
        gradients["log_prob"], unsure * gradients["margin"], rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize("score", ["log_prob", "logit"])
def test_soft_labels_weigh_the_classes(z, rng, score):
    t = rng.dirichlet(np.ones(C), B)
    value = class_score(tf.constant(z, tf.float32), tf.constant(t, tf.float32), score)
    np.testing.assert_allclose(value, softmax_score(z, t, score), rtol=2e-5, atol=1e-5)


@pytest.mark.parametrize("score", ["log_prob", "margin", "logit"])
def test_multi_label_closed_forms(z, rng, score):
    t = rng.integers(0, 2, (B, C)).astype(float)
    value = class_score(
        tf.constant(z, tf.float32), tf.constant(t, tf.float32), score, "sigmoid"
    )
    np.testing.assert_allclose(value, sigmoid_score(z, t, score), rtol=2e-5, atol=1e-5)


@pytest.mark.parametrize("classes", [1, C])
def test_soft_multi_labels_are_minus_the_cross_entropy(z, rng, classes):
    z, t = z[:, :classes], rng.uniform(0, 1, (B, classes))
    t[0] = 0.0

    def closed(z):
        return (t * log_sigmoid(z) + (1 - t) * log_sigmoid(-z)).sum(1)

    variable, targets = tf.constant(z, tf.float32), tf.constant(t, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(variable)
        value = class_score(variable, targets, "log_prob", "sigmoid")
    entropy = keras.losses.binary_crossentropy(targets, variable, from_logits=True)
    np.testing.assert_allclose(value, -classes * entropy, rtol=1e-5)
    np.testing.assert_allclose(value, closed(z), rtol=1e-5)
    steps = 1e-6 * np.eye(classes)
    wanted = [(closed(z + step) - closed(z - step)) / 2e-6 for step in steps]
    gradient = tape.gradient(value, variable)
    np.testing.assert_allclose(gradient, np.stack(wanted, 1), atol=1e-5)


@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
@pytest.mark.parametrize("score", ["log_prob", "margin", "logit"])
def test_gradients_are_differences_of_the_closed_form(z, rng, score, kind):
    t = np.eye(C)[rng.integers(0, C, B)]
    closed = softmax_score if kind == "softmax" else sigmoid_score
    wanted = np.zeros_like(z)
    for c in range(C):
        step = 1e-6 * np.eye(C)[c]
        wanted[:, c] = closed(z + step, t, score) - closed(z - step, t, score)
    variable = tf.constant(z, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(variable)
        value = class_score(variable, tf.constant(t, tf.float32), score, kind)
    gradient = tape.gradient(value, variable)
    np.testing.assert_allclose(gradient, wanted / 2e-6, atol=1e-5)


def test_scores_are_finite_far_out():
    z = tf.constant([[1e4, -1e4, 0.0]])
    for score in ("log_prob", "margin", "logit"):
        for kind in ("softmax", "sigmoid"):
            with tf.GradientTape() as tape:
                tape.watch(z)
                value = class_score(z, class_targets([1], z), score, kind)
            assert np.isfinite(value).all()
            assert np.isfinite(tape.gradient(value, z)).all()


def test_scores_are_float32():
    z = tf.zeros((1, 3), tf.float16)
    assert class_score(z, class_targets([0], z)).dtype == tf.float32


def test_unknown_score():
    with pytest.raises(ValueError, match="Unknown score: got 'entropy'"):
        class_score(tf.zeros((1, 2)), tf.zeros((1, 2)), "entropy")


@pytest.mark.parametrize(
    "y",
    [[2, 0], [[2], [0]], np.array([2.0, 0.0]), [[0, 0, 1], [1, 0, 0]]],
    ids=["sparse", "column", "float", "one-hot"],
)
def test_targets_of_every_form(y):
    targets = class_targets(y, tf.zeros((2, 3)))
    assert targets.dtype == tf.float32
    assert targets.numpy().tolist() == [[0, 0, 1], [1, 0, 0]]


def test_targets_of_one_output():
    for y in ([1, 0], [[1], [0]]):
        assert class_targets(y, tf.zeros((2, 1))).numpy().tolist() == [[1.0], [0.0]]


def test_targets_of_another_width():
    with pytest.raises(ValueError, match=r"got shape \(2, 5\)"):
        class_targets(np.zeros((2, 5)), tf.zeros((2, 3)))


def test_targets_whose_side_a_pipeline_lost():
    @tf.function(input_signature=[tf.TensorSpec((None, None))])
    def targets(y):
        known = class_targets(y, tf.zeros((1, 3)))
        assert known.shape[-1] == 3
        return known

    np.testing.assert_array_equal(targets(tf.eye(3)), np.eye(3))
    with pytest.raises(tf.errors.InvalidArgumentError, match="is not compatible"):
        targets(tf.eye(2))


@pytest.mark.parametrize("score", ["log_prob", "margin", "logit"])
@pytest.mark.parametrize("ignored", [-1, 255])
def test_a_label_that_is_no_class_has_no_score(score, ignored):
    z = tf.constant([[2.0, 1.0, 0.0], [2.0, 1.0, 0.0]])
    with tf.GradientTape() as tape:
        tape.watch(z)
        value = class_score(z, class_targets([1, ignored], z), score)
    gradient = tape.gradient(value, z)
    assert float(value[1]) == 0.0
    assert not np.any(gradient[1])
    assert np.any(gradient[0])


def test_predicted_targets():
    z = tf.constant([[1.0, 3.0, -1.0]])
    assert predicted_targets(z).numpy().tolist() == [[0.0, 1.0, 0.0]]
    assert predicted_targets(z, "sigmoid").numpy().tolist() == [[1.0, 1.0, 0.0]]
    assert predicted_targets(z[:, 2:]).numpy().tolist() == [[0.0]]


def test_log_prob_keeps_the_direction_of_a_sure_decision():
    # p_y rounds to one: the gradient must still be that of the log odds.
    z = tf.constant([[30.0, 0.0, 1.0]])
    targets = class_targets([0], z)
    pulls = {}
    for score in ("log_prob", "margin"):
        with tf.GradientTape() as tape:
            tape.watch(z)
            value = class_score(z, targets, score)
        pull = tape.gradient(value, z).numpy()[0]
        pulls[score] = pull / np.abs(pull).sum()
    np.testing.assert_allclose(pulls["log_prob"], pulls["margin"], rtol=1e-5)
