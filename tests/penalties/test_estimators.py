"""Estimators of Jacobian norms against closed forms, statistics and differences."""

import numpy as np
import pytest
import tensorflow as tf

from keras_jsigr.penalties import (
    Linearization,
    PenaltyBatch,
    PenaltySettings,
    exact,
    finite_difference,
    jvp,
    projected,
    reverse_mode_penalties,
)
from keras_jsigr.penalties.jacobian import random_cotangent, reduce_terms, safe_sqrt

B, D, C = 3, 5, 4


@pytest.fixture
def matrix():
    return np.random.default_rng(0).standard_normal((D, C))


@pytest.fixture
def weights():
    return np.random.default_rng(1).uniform(0, 1, (B, D))


def linearize(function, x, persistent=True, unit=1.0):
    with tf.GradientTape(persistent=persistent) as tape:
        tape.watch(x)
        z = function(x)
    return Linearization([x], z, tape, unit)


def closed_form(matrix, weights, norm):
    columns = np.square(matrix).sum(1)
    if norm == "squared":
        return 0.5 * (weights * columns).sum(1)
    return (weights * np.sqrt(columns)).sum(1)


def within_standard_errors(samples, expected, k=4.5):
    mean, error = samples.mean(0), samples.std(0, ddof=1) / np.sqrt(len(samples))
    np.testing.assert_array_less(np.abs(mean - expected), k * error + 1e-9)


@pytest.mark.parametrize("norm", ["squared", "l1"])
def test_exact_is_the_closed_form_of_a_linear_model(matrix, weights, norm):
    x = tf.zeros((B, D))
    lin = linearize(lambda x: x @ tf.constant(matrix, tf.float32), x)
    value = reduce_terms(exact(lin, norm), norm, [tf.constant(weights, tf.float32)])
    np.testing.assert_allclose(value, closed_form(matrix, weights, norm), rtol=1e-5)


def test_exact_is_the_closed_form_of_a_quadratic_model(matrix):
    x = tf.random.stateless_uniform((B, D), [0, 1])
    lin = linearize(lambda x: tf.square(x) @ tf.constant(matrix, tf.float32), x)
    jacobian = 2.0 * x.numpy()[:, :, None] * matrix
    expected = 0.5 * np.square(jacobian).sum((1, 2))
    np.testing.assert_allclose(reduce_terms(exact(lin), "squared"), expected, rtol=1e-5)


@pytest.mark.parametrize("norm", ["squared", "l1"])
def test_projection_is_unbiased_within_standard_errors(matrix, weights, norm):
    x = tf.zeros((B, D))
    w = [tf.constant(weights, tf.float32)]

    @tf.function
    def draw(seed):
        lin = linearize(lambda x: x @ tf.constant(matrix, tf.float32), x)
        return reduce_terms(projected(lin, seed, norm), norm, w)

    samples = np.stack([draw(tf.constant([5, i])) for i in range(3000)])
    assert samples.std(0).min() > 0
    within_standard_errors(samples, closed_form(matrix, weights, norm))


@pytest.mark.parametrize("estimator", ["finite_difference", "jvp"])
def test_directional_estimators_are_unbiased(matrix, weights, estimator):
    x = tf.zeros((B, D))
    w = [tf.constant(weights, tf.float32)]

    def forward(inputs):
        return inputs[0] @ tf.constant(matrix, tf.float32)

    @tf.function
    def draw(seed):
        if estimator == "jvp":
            return 0.5 * jvp(forward, [x], w, seed)[1]
        return 0.5 * finite_difference(forward, [x], forward([x]), w, seed)

    samples = np.stack([draw(tf.constant([9, i])) for i in range(3000)])
    within_standard_errors(samples, closed_form(matrix, weights, "squared"))


def test_finite_difference_and_jvp_agree_on_a_smooth_model(matrix):
    x = tf.random.stateless_uniform((B, D), [0, 1])

    def forward(inputs):
        return tf.tanh(inputs[0] @ tf.constant(matrix, tf.float32))

    seed = tf.constant([1, 2])
    difference = finite_difference(forward, [x], forward([x]), None, seed, step=1e-3)
    outputs, product = jvp(forward, [x], None, seed)
    np.testing.assert_allclose(outputs, forward([x]))
    np.testing.assert_allclose(difference, product, rtol=2e-2)


def test_sphere_covers_every_direction_equally():
    v = random_cotangent(tf.zeros((40_000, C)), tf.constant([3, 4]), "squared").numpy()
    np.testing.assert_allclose(np.square(v).sum(1), C, rtol=1e-5)
    second = v.T @ v / len(v)
    # Var(v_i v_j) <= C for the scaled sphere.
    assert np.abs(second - np.eye(C)).max() < 4.5 * np.sqrt(C / len(v))


@pytest.mark.parametrize("norm", ["squared", "l1"])
def test_unit_of_the_input_range(matrix, norm):
    """f(x / 255) on 0..255 has the penalty of f on 0..1."""
    small = tf.random.stateless_uniform((B, D), [0, 1])

    def f(x):
        return tf.tanh(x @ tf.constant(matrix, tf.float32))

    a = exact(linearize(f, small), norm)
    b = exact(linearize(lambda x: f(x / 255.0), small * 255.0, unit=255.0), norm)
    np.testing.assert_allclose(a[0], b[0], rtol=1e-4)


def test_batch_split_and_permutation(matrix):
    x = tf.random.stateless_uniform((6, D), [0, 1])

    def f(x):
        return tf.sin(x @ tf.constant(matrix, tf.float32))

    whole = reduce_terms(exact(linearize(f, x)), "squared").numpy()
    parts = [
        reduce_terms(exact(linearize(f, part)), "squared").numpy()
        for part in (x[:2], x[2:])
    ]
    np.testing.assert_allclose(whole, np.concatenate(parts), rtol=1e-5)
    order = [3, 1, 5, 0, 2, 4]
    shuffled = reduce_terms(exact(linearize(f, tf.gather(x, order))), "squared")
    np.testing.assert_allclose(shuffled, whole[order], rtol=1e-5)


def test_logit_shift_leaves_the_penalty(matrix):
    x = tf.random.stateless_uniform((B, D), [0, 1])

    def f(x):
        return tf.sin(x @ tf.constant(matrix, tf.float32))

    np.testing.assert_allclose(
        exact(linearize(f, x))[0], exact(linearize(lambda x: f(x) + 7.0, x))[0],
        rtol=1e-5,
    )  # fmt: skip


@pytest.mark.parametrize("norm", ["squared", "l1"])
def test_weight_gradient_matches_float64_finite_differences(matrix, norm):
    """d penalty / d weights, the second-order gradient that training uses."""
    x = tf.random.stateless_uniform((B, D), [0, 1], dtype=tf.float64)
    w = tf.Variable(matrix)

    def penalty():
        with tf.GradientTape() as tape:
            tape.watch(x)
            z = tf.tanh(x @ w)
        v = tf.constant(np.random.default_rng(2).standard_normal((B, C)))
        g = tape.gradient(z, x, v)
        return tf.reduce_sum(tf.square(g) if norm == "squared" else tf.abs(g))

    with tf.GradientTape() as outer:
        value = penalty()
    gradient = outer.gradient(value, w).numpy()
    direction = np.random.default_rng(3).standard_normal(matrix.shape)
    ends = []
    for sign in (1, -1):
        w.assign(matrix + sign * 1e-6 * direction)
        ends.append(float(penalty()))
    measured = (ends[0] - ends[1]) / 2e-6
    np.testing.assert_allclose((gradient * direction).sum(), measured, rtol=1e-6)


def test_exact_weight_gradient_of_a_linear_model_is_its_matrix(matrix):
    """1/2 ||W||_F^2 has gradient W, through the very functions of training."""
    w = tf.Variable(matrix, dtype=tf.float32)
    x = tf.zeros((1, D))
    with tf.GradientTape() as outer:
        value = reduce_terms(exact(linearize(lambda x: x @ w, x)), "squared")
    np.testing.assert_allclose(outer.gradient(value, w), matrix, rtol=1e-5)


def test_safe_sqrt_has_gradient_zero_at_zero():
    x = tf.constant([0.0, 4.0])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = safe_sqrt(x)
    np.testing.assert_array_equal(y, [0.0, 2.0])
    np.testing.assert_array_equal(tape.gradient(y, x), [0.0, 0.25])


def test_float16_gradients_do_not_underflow():
    """Rows of 1e-6 vanish in float16 sums; the prescale keeps them."""
    w = tf.fill((D, C), tf.constant(2e-4, tf.float16))
    x = tf.zeros((1, D), tf.float16)
    lin = linearize(lambda x: (x @ w) * tf.constant(2e-4, tf.float16), x)
    terms = exact(lin, "l1")[0].numpy()
    assert terms.dtype == np.float32
    np.testing.assert_allclose(terms, 4e-8 * np.sqrt(C), rtol=0.05)


def test_confident_scores_survive_float16_layers_under_a_float32_head(matrix):
    """`1 - p` of 1e-8 at the logits is nothing in float16."""
    settings = PenaltySettings(
        form="separate", selection="all", jacobian_weight=0.0, align_weight=1.0
    )
    targets, maps = tf.one_hot([0] * B, C), [tf.ones((B, D))]
    batch = PenaltyBatch(settings, targets, "softmax", maps, [0, 1])
    x = tf.random.stateless_uniform((B, D), [0, 1])
    found = []
    for dtype in (tf.float32, tf.float16):
        w = tf.constant(matrix, dtype)

        def net(x, w=w):
            hidden = tf.cast(x, w.dtype) @ w
            return tf.cast(hidden, tf.float32) + tf.constant([20.0, 0.0, 0.0, 0.0])

        found.append(reverse_mode_penalties(batch, linearize(net, x)))
    for name in ("selective", "align"):
        assert (found[0][name].numpy() > 0).all()
        np.testing.assert_allclose(found[1][name], found[0][name], rtol=2e-2)
