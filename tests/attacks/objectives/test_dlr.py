"""The difference of logits ratio against its formula, and at any scale."""

import numpy as np
import pytest
import tensorflow as tf

from keras_jsigr.attacks.objectives.dlr import dlr_loss, targeted_dlr_loss
from keras_jsigr.attacks.objectives.losses import misclassified

RNG = np.random.default_rng(11)
Z = RNG.normal(size=(50, 6)).astype("float32") * 3
Y = RNG.integers(0, 6, 50)
GOALS = (Y + RNG.integers(1, 6, 50)) % 6
ROWS, GOAL_ROWS = tf.one_hot(Y, 6), tf.one_hot(GOALS, 6)


def plain_dlr(z, y):
    ordered = np.sort(z)[::-1]
    return -(z[y] - np.delete(z, y).max()) / (ordered[0] - ordered[2])


def plain_targeted(z, y, t):
    ordered = np.sort(z)[::-1]
    return -(z[y] - z[t]) / (ordered[0] - (ordered[2] + ordered[3]) / 2)


def gradient(function, z, *rows):
    z = tf.convert_to_tensor(z)
    with tf.GradientTape() as tape:
        tape.watch(z)
        value = function(z, *rows)
    return tape.gradient(value, z).numpy()


CASES = [(dlr_loss, (ROWS,)), (targeted_dlr_loss, (ROWS, GOAL_ROWS))]


def test_values():
    z = Z.astype("float64")
    expected = [plain_dlr(row, y) for row, y in zip(z, Y, strict=True)]
    np.testing.assert_allclose(dlr_loss(Z, ROWS), expected, rtol=1e-4, atol=1e-6)
    expected = [plain_targeted(*row) for row in zip(z, Y, GOALS, strict=True)]
    values = targeted_dlr_loss(Z, ROWS, GOAL_ROWS)
    np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-6)


def test_positive_exactly_where_misclassified():
    wrong = misclassified(Z, ROWS).numpy()
    assert 0 < wrong.sum() < 50
    values = dlr_loss(Z, ROWS).numpy()
    np.testing.assert_array_equal(values > 0, wrong)


@pytest.mark.parametrize(("loss", "rows"), CASES)
@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1e3, 1e30])
def test_scale_and_shift(loss, rows, scale):
    """Equal values, and a gradient that is only shorter or longer."""
    np.testing.assert_allclose(loss(Z * scale, *rows), loss(Z, *rows), rtol=1e-4)
    scaled = gradient(loss, Z * np.float32(scale), *rows).astype("float64") * scale
    np.testing.assert_allclose(scaled, gradient(loss, Z, *rows), rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(loss(Z + 8, *rows), loss(Z, *rows), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("loss", "plain", "rows"),
    [(dlr_loss, plain_dlr, (Y,)), (targeted_dlr_loss, plain_targeted, (Y, GOALS))],
)
def test_gradient(loss, plain, rows):
    """Central differences in float64: the rank of a logit does not change nearby."""
    z = np.linspace(-2, 2, 6)[RNG.permuted(np.tile(np.arange(6), (50, 1)), axis=1)]
    h, expected = 1e-6, np.zeros_like(z)
    for i in range(6):
        step = h * np.eye(6)[i]
        for b in range(50):
            at = [row[b] for row in rows]
            rise = plain(z[b] + step, *at) - plain(z[b] - step, *at)
            expected[b, i] = rise / (2 * h)
    targets = [tf.one_hot(row, 6) for row in rows]
    actual = gradient(loss, z.astype("float32"), *targets)
    np.testing.assert_allclose(actual, expected, atol=1e-4)


@pytest.mark.parametrize(("loss", "rows"), CASES)
def test_ties_are_finite(loss, rows):
    for z in (tf.zeros((50, 6)), tf.constant(np.round(Z / 3))):
        assert np.isfinite(loss(z, *rows)).all()
        assert np.isfinite(gradient(loss, z, *rows)).all()


def test_few_classes_fall_back():
    z, rows = tf.constant([[2.0, 5.0], [1.0, 0.0]]), tf.constant([[1.0, 0.0]] * 2)
    np.testing.assert_allclose(dlr_loss(z, rows), [3.0, -1.0])
    one, targets = tf.constant([[2.0], [-1.0]]), tf.constant([[1.0], [1.0]])
    np.testing.assert_allclose(dlr_loss(one, targets), [-2.0, 1.0])
    goals = 1.0 - targets
    np.testing.assert_allclose(targeted_dlr_loss(one, targets, goals), [-2.0, 1.0])
    three = tf.constant([[3.0, 1.0, 0.0]])
    values = targeted_dlr_loss(three, tf.eye(3)[:1], tf.eye(3)[2:])
    np.testing.assert_allclose(values, [-3.0])


@pytest.mark.parametrize("dtype", [tf.float16, tf.bfloat16, tf.float64])
def test_always_float32(dtype):
    for loss, rows in CASES:
        assert loss(tf.cast(Z, dtype), *rows).dtype == tf.float32


def test_classes_ruled_out_leave_the_ratio_of_the_others():
    inf = float("inf")
    z, rows = tf.constant([[4.0, 3.0, 1.0, 1.0, -inf]]), tf.eye(5)
    np.testing.assert_allclose(dlr_loss(z, rows[:1]), [-1 / 3], rtol=1e-6)
    targeted = targeted_dlr_loss(z, rows[:1], rows[1:2])
    np.testing.assert_allclose(targeted, [-1 / 3], rtol=1e-6)
    # No third logit, as with two classes: the margin.
    two = tf.constant([[4.0, 3.0, -inf, -inf]])
    np.testing.assert_allclose(dlr_loss(two, tf.eye(4)[:1]), [-1.0])
    np.testing.assert_allclose(targeted_dlr_loss(two, *tf.eye(4)[:2, None]), [-1.0])
    slope = gradient(dlr_loss, two, tf.eye(4)[:1])
    np.testing.assert_array_equal(slope, [[-1.0, 1.0, 0.0, 0.0]])
