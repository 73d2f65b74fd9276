"""The guided projection against closed forms, statistics and quadrature."""

import numpy as np
import pytest
import tensorflow as tf
from scipy import integrate, stats

from keras_jsigr.core.scores import class_score
from keras_jsigr.core.streams import stream
from keras_jsigr.penalties import (
    Linearization,
    PenaltyBatch,
    PenaltySettings,
    exact,
    guided,
    projected,
    reverse_mode_penalties,
)
from keras_jsigr.penalties.guided import folded_normal_mean
from keras_jsigr.penalties.objective import products

B, D, C = 3, 5, 4


@pytest.fixture
def matrix():
    return np.random.default_rng(0).standard_normal((D, C))


@pytest.fixture
def linear(matrix):
    x = tf.random.stateless_uniform((B, D), [0, 1])
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        z = x @ tf.constant(matrix, tf.float32)
    return Linearization([x], z, tape)


@pytest.fixture
def cotangent():
    return tf.random.stateless_normal((B, C), [0, 2])


def batch_of(settings, fold=0):
    targets = tf.one_hot(tf.range(B) % C, C)
    return PenaltyBatch(settings, targets, "softmax", [], tf.constant([7, fold]))


@pytest.mark.parametrize(("mean", "deviation"), [(0.0, 1.0), (-0.7, 0.3), (2.0, 0.01)])
def test_folded_mean_is_the_integral(mean, deviation):
    density = stats.norm(mean, deviation).pdf
    around = (mean - 12 * deviation, mean + 12 * deviation)
    expected, _ = integrate.quad(
        lambda v: abs(v) * density(v), *around, points=[0.0, mean], limit=200
    )
    found = folded_normal_mean(tf.constant(mean), tf.constant(deviation))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_folded_mean_without_spread_has_a_gradient():
    mean, deviation = tf.constant([-2.0, 3.0]), tf.zeros(2)
    with tf.GradientTape() as tape:
        tape.watch([mean, deviation])
        value = folded_normal_mean(mean, deviation)
    np.testing.assert_array_equal(value, [2.0, 3.0])
    by_mean, by_deviation = tape.gradient(value, [mean, deviation])
    np.testing.assert_array_equal(by_mean, [-1.0, 1.0])
    assert np.isfinite(by_deviation).all()


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["l1", "squared"])
@pytest.mark.parametrize("spread", [0.2, 1.5])
def test_projection_is_unbiased_within_standard_errors(linear, cotangent, norm, spread):
    draw = tf.function(
        lambda seed: guided.projected(
            linear, cotangent, seed, spread=spread, norm=norm
        )[0]
    )
    samples = np.stack([draw(tf.constant([5, i])) for i in range(3000)])
    expected = guided.exact(linear, cotangent, spread=spread, norm=norm)[0]
    error = samples.std(0, ddof=1) / np.sqrt(len(samples))
    assert error.min() > 0
    np.testing.assert_array_less(np.abs(samples.mean(0) - expected), 4.5 * error)


@pytest.mark.parametrize("estimate", [guided.exact, guided.projected])
def test_without_spread_it_is_the_gradient_of_the_score(
    linear, cotangent, matrix, estimate
):
    seed = {} if estimate is guided.exact else {"seed": [0, 1]}
    found = estimate(linear, cotangent, spread=0.0, **seed)[0]
    np.testing.assert_allclose(found, np.abs(cotangent @ matrix.T), rtol=1e-5)


def test_with_much_spread_it_is_the_jacobian(linear, cotangent):
    far = guided.exact(linear, cotangent, spread=1e4)[0] / 1e4
    columns = exact(linear, "l1")[0] * np.sqrt(2 / np.pi)
    np.testing.assert_allclose(far, columns, rtol=1e-4)
    seed = tf.constant([3, 4])
    far = guided.projected(linear, cotangent, seed, spread=1e4)[0] / 1e4
    near = projected(linear, seed, "l1")[0] * np.sqrt(2 / np.pi)
    np.testing.assert_allclose(far, near, atol=1e-3)


@pytest.mark.parametrize("norm", ["l1", "squared"])
@pytest.mark.parametrize("estimator", ["vjp", "exact"])
def test_penalties_are_sums_of_the_terms(linear, matrix, norm, estimator):
    settings = PenaltySettings(
        form="guided", norm=norm, estimator=estimator, selection="all", spread=0.3
    )
    batch = batch_of(settings)
    found = reverse_mode_penalties(batch, linear)
    with tf.GradientTape() as tape:
        tape.watch(linear.logits)
        score = class_score(linear.logits, batch.targets, "log_prob", "softmax")
    ds_dz = tape.gradient(score, linear.logits)
    if estimator == "exact":
        terms = guided.exact(linear, ds_dz, spread=0.3, norm=norm)[0]
    else:
        xi = tf.random.stateless_normal((B, C), stream(batch.seed, "projections"))
        g = (ds_dz + 0.3 * xi).numpy() @ matrix.T
        terms = np.abs(g) if norm == "l1" else np.square(g)
    expected = np.sum(terms, axis=1) * (0.5 if norm == "squared" else 1.0)
    for name in ("jacobian", "selective"):
        np.testing.assert_allclose(found[name], expected, rtol=1e-4)


def test_more_projections_are_their_mean(linear):
    common = {"form": "guided", "selection": "all"}
    two = batch_of(PenaltySettings(**common, projections=2))
    found = reverse_mode_penalties(two, linear)["jacobian"]
    singles = []
    for k in range(2):
        xi = tf.random.stateless_normal((B, C), stream(two.seed, "projections", k))
        probabilities = tf.nn.softmax(linear.logits)
        g = linear.vjp(two.targets - probabilities + 0.2 * xi)[0]
        singles.append(np.abs(g).sum(1))
    np.testing.assert_allclose(found, np.mean(singles, axis=0), rtol=1e-4)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, 1),
        ({"projections": 3}, 3),
        ({"estimator": "exact"}, C + 1),
        ({"align_weight": 0.1}, 2),
        ({"jacobian_weight": 0.0}, 1),
        ({"jacobian_weight": 0.0, "selective_weight": 0.0}, 0),
    ],
)
def test_products_of_a_step(settings, expected):
    assert products(PenaltySettings(form="guided", **settings), C) == expected


@pytest.mark.parametrize("estimator", ["finite_difference", "jvp"])
def test_directions_of_input_space_do_not_do(estimator):
    with pytest.raises(ValueError, match="form='guided' needs the gradient"):
        PenaltySettings(form="guided", estimator=estimator, norm="squared")


@pytest.mark.parametrize("spread", [-0.1, float("inf")])
def test_the_spread_is_a_deviation(spread):
    with pytest.raises(ValueError, match=r"`spread` is out of range"):
        PenaltySettings(form="guided", spread=spread)


def test_gradient_by_the_weights_is_that_of_differences():
    """The whole penalty, twice differentiated, in float64."""
    rng = np.random.default_rng(3)
    x = tf.constant(rng.uniform(size=(B, D)))
    kernel = rng.standard_normal((D, C))
    seed, labels = tf.constant([1, 2]), tf.range(B) % C

    def penalty(w):
        """Plain TensorFlow, with the noise that the package draws."""
        w = tf.convert_to_tensor(w)
        z = tf.tanh(x @ w)
        v = tf.one_hot(labels, C, dtype=tf.float64) - tf.nn.softmax(z)
        xi = tf.random.stateless_normal((B, C), stream(batch.seed, "projections"))
        v += 0.2 * tf.cast(xi, tf.float64)
        return tf.reduce_sum(tf.abs(((1 - z**2) * v) @ tf.transpose(w)))

    settings = PenaltySettings(form="guided", selection="all")
    batch = PenaltyBatch(settings, tf.one_hot(labels, C), "softmax", [], seed)
    w = tf.Variable(kernel, dtype=tf.float32)
    with tf.GradientTape() as outer:
        point = tf.cast(x, tf.float32)
        with tf.GradientTape() as tape:
            tape.watch(point)
            z = tf.tanh(point @ w)
        lin = Linearization([point], z, tape)
        total = tf.reduce_sum(reverse_mode_penalties(batch, lin)["jacobian"])
    found = outer.gradient(total, w).numpy()
    step, expected = 1e-6, np.zeros_like(kernel)
    for position in np.ndindex(kernel.shape):
        for sign in (1.0, -1.0):
            moved = kernel.copy()
            moved[position] += sign * step
            expected[position] += sign * penalty(moved).numpy() / (2 * step)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)
