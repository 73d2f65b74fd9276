"""Estimators of Jacobian norms against closed forms, statistics and differences."""

from functools import partial

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from scipy import integrate, stats

import keras_jsigr as kj
from keras_jsigr.core.random import named_seed
from keras_jsigr.core.scores import class_score
from keras_jsigr.penalties import (
    Linearization,
    PenaltyBatch,
    alignment_penalty,
    exact,
    finite_difference,
    jvp,
    penalty_values,
    projected,
    selection_weights,
    warmup_factor,
)
from keras_jsigr.penalties import jacobian as mixed
from keras_jsigr.penalties.base import safe_sqrt
from keras_jsigr.penalties.jacobian import folded_normal_mean, random_cotangent, reduce_terms
from keras_jsigr.penalties.objective import count_products

B, D, C = 3, 5, 4


@pytest.fixture
def matrix():
    return np.random.default_rng(0).standard_normal((D, C))


@pytest.fixture
def weights_penalties():
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
def test_exact_is_the_closed_form_of_a_linear_model(matrix, weights_penalties, norm):
    x = tf.zeros((B, D))
    lin = linearize(lambda x: x @ tf.constant(matrix, tf.float32), x)
    value = reduce_terms(exact(lin, norm), norm, [tf.constant(weights_penalties, tf.float32)])
    np.testing.assert_allclose(value, closed_form(matrix, weights_penalties, norm), rtol=1e-5)


def test_exact_is_the_closed_form_of_a_quadratic_model(matrix):
    x = tf.random.stateless_uniform((B, D), [0, 1])
    lin = linearize(lambda x: tf.square(x) @ tf.constant(matrix, tf.float32), x)
    jacobian = 2.0 * x.numpy()[:, :, None] * matrix
    expected = 0.5 * np.square(jacobian).sum((1, 2))
    np.testing.assert_allclose(reduce_terms(exact(lin), "squared"), expected, rtol=1e-5)


@pytest.mark.parametrize("norm", ["squared", "l1"])
def test_projection_is_unbiased_within_standard_errors(matrix, weights_penalties, norm):
    x = tf.zeros((B, D))
    w = [tf.constant(weights_penalties, tf.float32)]

    @tf.function(autograph=False)
    def draw(seed):
        lin = linearize(lambda x: x @ tf.constant(matrix, tf.float32), x)
        return reduce_terms(projected(lin, seed, norm), norm, w)

    samples = np.stack([draw(tf.constant([5, i])) for i in range(3000)])
    assert samples.std(0).min() > 0
    within_standard_errors(samples, closed_form(matrix, weights_penalties, norm))


@pytest.mark.parametrize("estimator", ["finite_difference", "jvp"])
def test_directional_estimators_are_unbiased(matrix, weights_penalties, estimator):
    x = tf.zeros((B, D))
    w = [tf.constant(weights_penalties, tf.float32)]

    def forward(inputs):
        return inputs[0] @ tf.constant(matrix, tf.float32)

    @tf.function(autograph=False)
    def draw(seed):
        if estimator == "jvp":
            return 0.5 * jvp(forward, [x], w, seed)[1]
        return 0.5 * finite_difference(forward, [x], forward([x]), w, seed)

    samples = np.stack([draw(tf.constant([9, i])) for i in range(3000)])
    within_standard_errors(samples, closed_form(matrix, weights_penalties, "squared"))


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


def test_unit_of_the_input_range(matrix):
    """f(x / 255) on 0..255 has the penalty of f on 0..1."""
    small = tf.random.stateless_uniform((B, D), [0, 1])

    def f(x):
        return tf.tanh(x @ tf.constant(matrix, tf.float32))

    for norm in ("squared", "l1"):
        a = exact(linearize(f, small), norm)
        b = exact(linearize(lambda x: f(x / 255.0), small * 255.0, unit=255.0), norm)
        np.testing.assert_allclose(a[0], b[0], rtol=1e-4)


def test_batch_split_and_permutation(matrix):
    x = tf.random.stateless_uniform((6, D), [0, 1])

    def f(x):
        return tf.sin(x @ tf.constant(matrix, tf.float32))

    whole = reduce_terms(exact(linearize(f, x)), "squared").numpy()
    parts = [reduce_terms(exact(linearize(f, part)), "squared").numpy() for part in (x[:2], x[2:])]
    np.testing.assert_allclose(whole, np.concatenate(parts), rtol=1e-5)
    order = [3, 1, 5, 0, 2, 4]
    shuffled = reduce_terms(exact(linearize(f, tf.gather(x, order))), "squared")
    np.testing.assert_allclose(shuffled, whole[order], rtol=1e-5)


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
    penalties = kj.JSIGRConfig(
        selective_target="score",
        selection="all",
        jacobian_weight=0.0,
        alignment_weight=1.0,
    ).build_penalties()
    targets, maps = tf.one_hot([0] * B, C), [tf.ones((B, D))]
    batch = PenaltyBatch(targets, "softmax", maps, [0, 1])
    x = tf.random.stateless_uniform((B, D), [0, 1])
    found = []
    for dtype in (tf.float32, tf.float16):
        w = tf.constant(matrix, dtype)

        def net(x, w=w):
            hidden = tf.cast(x, w.dtype) @ w
            return tf.cast(hidden, tf.float32) + tf.constant([20.0, 0.0, 0.0, 0.0])

        found.append(penalty_values(penalties, linearize(net, x), batch))
    for name in ("selective", "alignment"):
        assert (found[0][name].numpy() > 0).all()
        np.testing.assert_allclose(found[1][name], found[0][name], rtol=2e-2)


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


@pytest.fixture
def batch_penalties():
    targets = tf.one_hot(tf.range(B) % C, C)
    return PenaltyBatch(targets, "softmax", [], tf.constant([7, 0]))


def values(linearization, batch, **settings):
    config = kj.JSIGRConfig(**{"selection": "all", **settings})
    return penalty_values(config.build_penalties(), linearization, batch)


def test_folded_mean_is_the_integral():
    for mean, deviation in ((0.0, 1.0), (-0.7, 0.3), (2.0, 0.01)):
        normal = stats.norm(mean, deviation)
        around = (mean - 12 * deviation, mean + 12 * deviation)
        expected, _ = integrate.quad(
            lambda v, normal=normal: abs(v) * normal.pdf(v), *around, points=[0.0, mean], limit=200
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
@pytest.mark.parametrize("std", [0.2, 1.5])
def test_projection_is_unbiased_within_standard_errors_mixed(linear, cotangent, norm, std):
    draw = tf.function(
        lambda seed: mixed.projected_mixed(linear, cotangent, seed, std=std, norm=norm)[0]
    )
    samples = np.stack([draw(tf.constant([5, i])) for i in range(3000)])
    expected = mixed.exact_mixed(linear, cotangent, std=std, norm=norm)[0]
    error = samples.std(0, ddof=1) / np.sqrt(len(samples))
    assert error.min() > 0
    np.testing.assert_array_less(np.abs(samples.mean(0) - expected), 4.5 * error)


def test_without_spread_it_is_the_gradient_of_the_score(linear, cotangent, matrix):
    for estimate, seed in ((mixed.exact_mixed, {}), (mixed.projected_mixed, {"seed": [0, 1]})):
        found = estimate(linear, cotangent, std=0.0, **seed)[0]
        np.testing.assert_allclose(found, np.abs(cotangent @ matrix.T), rtol=1e-5)


def test_with_much_spread_it_is_the_jacobian(linear, cotangent):
    far = mixed.exact_mixed(linear, cotangent, std=1e4)[0] / 1e4
    columns = exact(linear, "l1")[0] * np.sqrt(2 / np.pi)
    np.testing.assert_allclose(far, columns, rtol=1e-4)
    seed = tf.constant([3, 4])
    far = mixed.projected_mixed(linear, cotangent, seed, std=1e4)[0] / 1e4
    near = projected(linear, seed, "l1")[0] * np.sqrt(2 / np.pi)
    np.testing.assert_allclose(far, near, atol=1e-3)


@pytest.mark.parametrize("norm", ["l1", "squared"])
@pytest.mark.parametrize("estimator", ["random_projection", "exact"])
def test_penalties_are_sums_of_the_terms(linear, batch_penalties, matrix, norm, estimator):
    found = values(
        linear,
        batch_penalties,
        selective_target="mixed",
        norm=norm,
        estimator=estimator,
        projection_std=0.3,
    )
    with tf.GradientTape() as tape:
        tape.watch(linear.logits)
        score = class_score(linear.logits, batch_penalties.targets, "log_prob", "softmax")
    ds_dz = tape.gradient(score, linear.logits)
    if estimator == "exact":
        terms = mixed.exact_mixed(linear, ds_dz, std=0.3, norm=norm)[0]
    else:
        xi = tf.random.stateless_normal((B, C), named_seed(batch_penalties.seed, "projections"))
        g = (ds_dz + 0.3 * xi).numpy() @ matrix.T
        terms = np.abs(g) if norm == "l1" else np.square(g)
    expected = np.sum(terms, axis=1) * (0.5 if norm == "squared" else 1.0)
    for name in ("jacobian", "selective"):
        np.testing.assert_allclose(found[name], expected, rtol=1e-4)


def test_more_projections_are_their_mean(linear, batch_penalties):
    found = values(linear, batch_penalties, selective_target="mixed", num_projections=2)
    found = found["jacobian"]
    singles = []
    for k in range(2):
        xi = tf.random.stateless_normal((B, C), named_seed(batch_penalties.seed, "projections", k))
        probabilities = tf.nn.softmax(linear.logits)
        g = linear.vjp(batch_penalties.targets - probabilities + 0.2 * xi)[0]
        singles.append(np.abs(g).sum(1))
    np.testing.assert_allclose(found, np.mean(singles, axis=0), rtol=1e-4)


PRODUCTS = [
    ({}, 1),
    ({"num_projections": 3}, 3),
    ({"estimator": "exact"}, C + 1),
    ({"alignment_weight": 0.1}, 2),
    ({"jacobian_weight": 0.0}, 1),
    ({"jacobian_weight": 0.0, "selective_weight": 0.0}, 0),
    ({"selective_target": "jacobian"}, 1),
    ({"selective_target": "jacobian", "estimator": "exact"}, C),
    ({"selective_target": "score"}, 2),
    ({"selective_target": "score", "alignment_weight": 0.1}, 2),
    ({"selective_target": "score", "num_projections": 2}, 3),
    ({"selective_target": "score", "estimator": "jvp", "norm": "squared"}, 0),
]


def test_shared_products_are_computed_once(matrix, monkeypatch):
    x, w = tf.random.stateless_uniform((B, D), [0, 1]), tf.cast(matrix, tf.float32)
    asked, original = [], Linearization.vjp

    def counted(self, cotangent):
        asked.append(cotangent)
        return original(self, cotangent)

    monkeypatch.setattr(Linearization, "vjp", counted)
    targets, maps = tf.one_hot([0] * B, C), [tf.ones((B, D))]
    for settings, expected in PRODUCTS:
        config = kj.JSIGRConfig(**{"selective_target": "mixed", **settings})
        penalties = config.build_penalties()
        assert count_products(penalties, C) == expected, settings
        if config.estimator != "jvp":
            asked.clear()
            linear = linearize(lambda x: tf.tanh(x @ w), x)
            penalty_values(penalties, linear, PenaltyBatch(targets, "softmax", maps, [0, 1]))
            assert len(asked) == expected, settings


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
        xi = tf.random.stateless_normal((B, C), named_seed(batch.seed, "projections"))
        v += 0.2 * tf.cast(xi, tf.float64)
        return tf.reduce_sum(tf.abs(((1 - z**2) * v) @ tf.transpose(w)))

    batch = PenaltyBatch(tf.one_hot(labels, C), "softmax", [], seed)
    w = tf.Variable(kernel, dtype=tf.float32)
    with tf.GradientTape() as outer:
        point = tf.cast(x, tf.float32)
        with tf.GradientTape() as tape:
            tape.watch(point)
            z = tf.tanh(point @ w)
        lin = Linearization([point], z, tape)
        total = tf.reduce_sum(values(lin, batch, selective_target="mixed")["jacobian"])
    found = outer.gradient(total, w).numpy()
    step, expected = 1e-6, np.zeros_like(kernel)
    for position in np.ndindex(kernel.shape):
        for sign in (1.0, -1.0):
            moved = kernel.copy()
            moved[position] += sign * step
            expected[position] += sign * penalty(moved).numpy() / (2 * step)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


@pytest.fixture
def saliency():
    return tf.constant(np.random.default_rng(0).uniform(0, 1, (4, 6, 6)), tf.float32)


def test_soft_all_none(saliency):
    np.testing.assert_allclose(selection_weights(saliency, "soft"), 1 - saliency)
    np.testing.assert_array_equal(selection_weights(saliency, "all"), 1.0)
    np.testing.assert_array_equal(selection_weights(saliency, "none"), 0.0)


def test_hard_takes_the_least_salient_share(saliency):
    for quantile in (0.0, 0.25, 1.0):
        chosen = selection_weights(saliency, "hard", quantile=quantile).numpy() > 0
        assert (chosen.reshape(4, -1).sum(1) == round(36 * quantile)).all()
        for mask, s in zip(chosen, saliency.numpy(), strict=True):
            if mask.any() and not mask.all():
                assert s[mask].max() < s[~mask].min()


@pytest.mark.parametrize(("share", "known"), [(0.07, True), (0.55, False)])
def test_a_share_is_not_rounded_up_by_its_last_bit(share, known):
    s = np.random.default_rng(0).permutation(100).reshape(1, 10, 10) / 100

    @tf.function(autograph=False, input_signature=[tf.TensorSpec((1, None, None))])
    def of_any_sides(s):
        return selection_weights(s, "hard", quantile=share)

    s = tf.constant(s, tf.float32)
    marks = selection_weights(s, "hard", quantile=share) if known else of_any_sides(s)
    assert float(tf.reduce_sum(marks)) == round(100 * share)


def test_random_has_the_density_of_hard_and_follows_the_seed(saliency):
    a = selection_weights(saliency, "random", seed=(1, 2)).numpy()
    assert (a.reshape(4, -1).sum(1) == 18).all()
    np.testing.assert_array_equal(a, selection_weights(saliency, "random", seed=(1, 2)))
    assert (a != selection_weights(saliency, "random", seed=(1, 3)).numpy()).any()


def test_sides_that_are_known_late_select_the_same(saliency):
    spec = tf.TensorSpec((None, None, None))
    for quantile in (0.0, 0.3):
        select = partial(selection_weights, selection="random", quantile=quantile, seed=(1, 2))
        late = tf.function(select, autograph=False, input_signature=[spec])
        np.testing.assert_array_equal(late(saliency), select(saliency))


def test_threshold_levels(saliency):
    given = selection_weights(saliency, "threshold", threshold=0.3)
    np.testing.assert_array_equal(given, saliency.numpy() < 0.3)
    s = saliency.numpy()
    level = s.mean((1, 2), keepdims=True) + s.std((1, 2), keepdims=True)
    np.testing.assert_array_equal(selection_weights(saliency, "threshold"), s < level)


def test_a_map_of_zeros_selects_everything():
    zeros = tf.zeros((1, 3, 3))
    for selection in ("soft", "hard", "all"):
        np.testing.assert_array_equal(selection_weights(zeros, selection), 1.0)


def test_no_gradient_flows_into_the_selection(saliency):
    for selection in ("soft", "hard", "threshold", "inverted", "all"):
        with tf.GradientTape() as tape:
            tape.watch(saliency)
            total = tf.reduce_sum(selection_weights(saliency, selection))
        assert tape.gradient(total, saliency) is None


def test_alignment_is_one_minus_the_cosine():
    rng = np.random.default_rng(1)
    g = rng.standard_normal((3, 4, 4, 2)).astype("float32")
    s = rng.uniform(0, 1, (3, 4, 4)).astype("float32")
    a = np.abs(g).sum(-1).reshape(3, -1)
    b = s.reshape(3, -1)
    cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    np.testing.assert_allclose(alignment_penalty(g, s), 1 - cosine, rtol=1e-5)
    np.testing.assert_allclose(alignment_penalty(5 * g, s), 1 - cosine, rtol=1e-5)
    same = np.abs(g).sum(-1)
    np.testing.assert_allclose(alignment_penalty(g, same), 0.0, atol=1e-6)


def test_alignment_at_exactly_zero_has_no_nan():
    g = tf.zeros((2, 3, 3, 1))
    with tf.GradientTape() as tape:
        tape.watch(g)
        value = alignment_penalty(g, tf.zeros((2, 3, 3)))
    np.testing.assert_array_equal(value, 1.0)
    np.testing.assert_array_equal(tape.gradient(value, g), 0.0)


def test_warmup():
    for delay, ramp, expected in (
        (0, 0, [1, 1, 1, 1, 1]),
        (0, 4, [0.25, 0.5, 0.75, 1, 1]),
        (2, 0, [0, 0, 1, 1, 1]),
        (2, 2, [0, 0, 0.5, 1, 1]),
    ):
        steps = [float(warmup_factor(tf.constant(t), delay, ramp)) for t in range(5)]
        np.testing.assert_allclose(steps, expected)


# Penalties as objects


@pytest.mark.parametrize(
    "penalty",
    [
        kj.penalties.JacobianNorm(0.1, target="mixed", projection_std=0.5),
        kj.penalties.SelectiveInputGradient(0.2, target="score", selection="hard"),
        kj.penalties.SaliencyAlignment(0.3, class_score="margin"),
        kj.penalties.DirectionalNorm(0.1, 0.2, selection="threshold"),
    ],
    ids=lambda penalty: penalty.name,
)
def test_a_penalty_comes_back(penalty):
    written = keras.saving.serialize_keras_object(penalty)
    assert keras.saving.deserialize_keras_object(written) == penalty
    other = type(penalty)(**{**penalty.get_config(), "name": "other"})
    assert other != penalty != penalty.get_config()
    assert {penalty: 1}[keras.saving.deserialize_keras_object(written)] == 1
    assert penalty.name in repr(penalty)


class Bare(kj.penalties.Penalty):
    def __call__(self, linearization, batch):
        return tf.square(linearization.inputs[0])


def test_bad_penalties():
    for make, error, message in (
        (lambda: Bare(-1.0, "bare"), ValueError, "`weight` is out of range"),
        (lambda: Bare(1.0, "two words"), ValueError, "named by an identifier"),
        (lambda: kj.penalties.Penalty(1.0, "x"), TypeError, "abstract"),
        (lambda: kj.penalties.JacobianNorm(1.0, target="score"), ValueError, "score"),
        (lambda: kj.penalties.JacobianNorm(1.0, estimator="jvp"), ValueError, "jvp"),
        (lambda: kj.penalties.SaliencyAlignment(1.0, class_score="p"), ValueError, "p"),
    ):
        with pytest.raises(error, match=message):
            make()


def test_a_penalty_has_one_value_per_example(linear, batch_penalties):
    with pytest.raises(ValueError, match=r"got shape \(3, 5\) from `bare`"):
        penalty_values([Bare(1.0, "bare")], linear, batch_penalties)


def test_products_of_a_pass_that_was_not_recorded(batch_penalties):
    unrecorded = Linearization([tf.ones((B, D))], tf.ones((B, C)), None)
    with pytest.raises(ValueError, match="Set needs_gradients=True"):
        unrecorded.score_gradient(batch_penalties)
    directional = kj.penalties.JacobianNorm(0.1, estimator="jvp", norm="squared")
    assert count_products([directional], C) == 0
    with pytest.raises(ValueError, match="Pass forward="):
        directional(unrecorded, batch_penalties)


B_OWN_PENALTY, D_OWN_PENALTY, C_OWN_PENALTY, RATE, WEIGHT = 6, 5, 3, 0.1, 0.3


@keras.saving.register_keras_serializable(package="tests_penalties")
class MarginGradient(kj.penalties.Penalty):
    """Half the squared input gradient of the margin, as a user would write it."""

    def __init__(self, weight=WEIGHT, name="margin_gradient", power=2):
        super().__init__(weight, name)
        self.power = power

    def __call__(self, linearization, batch):
        gradients = linearization.score_gradient(batch, "margin")
        powers = [tf.abs(gradient) ** self.power for gradient in gradients]
        return 0.5 * kj.penalties.per_example_sum(powers)

    def get_config(self):
        return {**super().get_config(), "power": self.power}


@keras.saving.register_keras_serializable(package="tests_penalties")
class MapMean(kj.penalties.Penalty):
    """Reads the maps, and no gradient."""

    needs_gradients = False
    needs_map = True

    def __call__(self, linearization, batch):
        return kj.penalties.per_example_sum(batch.maps)


X = np.random.default_rng(0).uniform(size=(B_OWN_PENALTY, D_OWN_PENALTY)).astype("float32")


Y = np.arange(B_OWN_PENALTY) % C_OWN_PENALTY


def hardened(*penalties, **settings):
    keras.utils.set_random_seed(0)
    net = keras.Sequential(
        [
            layers.Input((D_OWN_PENALTY,)),
            layers.Dense(4, activation="tanh"),
            layers.Dense(C_OWN_PENALTY),
        ]
    )
    config = kj.JSIGRConfig(penalties=penalties, **settings)
    robust = kj.harden(net, 0.1, config, warmup=0, verbose=0)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    robust.compile(keras.optimizers.SGD(RATE), loss)
    return robust


ALONE = {"jacobian_weight": 0.0, "selective_weight": 0.0}


def numpy_loss(weights):
    """The task loss and the penalty of the two dense layers, in float64."""
    first, first_bias, second, second_bias = weights
    hidden = np.tanh(X @ first + first_bias)
    z = hidden @ second + second_bias
    log_p = z - z.max(1, keepdims=True)
    log_p = log_p - np.log(np.exp(log_p).sum(1, keepdims=True))
    onehot = np.eye(C_OWN_PENALTY)[Y]
    others = np.exp(log_p) * (1 - onehot)
    pull = onehot - others / others.sum(1, keepdims=True)
    gradient = ((pull @ second.T) * (1 - hidden**2)) @ first.T
    penalty = 0.5 * np.square(gradient).sum(1)
    return np.mean(-(onehot * log_p).sum(1) + WEIGHT * penalty), penalty.mean()


def test_a_step_is_that_of_differences():
    robust = hardened(MarginGradient(), **ALONE)
    weights = [np.float64(w) for w in robust.base.get_weights()]
    expected = []
    for index, weight in enumerate(weights):
        slope = np.zeros_like(weight)
        for place in np.ndindex(weight.shape):
            ends = []
            for sign in (1, -1):
                moved = [w.copy() for w in weights]
                moved[index][place] += sign * 1e-6
                ends.append(numpy_loss(moved)[0])
            slope[place] = (ends[0] - ends[1]) / 2e-6
        expected.append(weight - RATE * slope)
    logs = robust.train_on_batch(X, Y, return_dict=True)
    loss, penalty = numpy_loss(weights)
    assert logs["loss"] == pytest.approx(loss, rel=1e-5)
    assert logs["margin_gradient_penalty"] == pytest.approx(penalty, rel=1e-5)
    for found, wanted in zip(robust.base.get_weights(), expected, strict=True):
        np.testing.assert_allclose(found, wanted, atol=2e-6)


def test_it_is_saved_loaded_trained_on_and_exported(tmp_path):
    robust = hardened(MarginGradient(power=1))
    robust.fit(X, Y, batch_size=B_OWN_PENALTY, verbose=0)
    robust.margin_gradient_weight.assign(0.7)
    robust.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    assert loaded.config == robust.config
    assert loaded.penalties[-1].power == 1
    assert loaded.penalty_weights == robust.penalty_weights
    assert loaded.penalty_weights["margin_gradient"] == pytest.approx(0.7)
    for model in (robust, loaded):
        history = model.fit(X, Y, batch_size=B_OWN_PENALTY, shuffle=False, verbose=0).history
        assert history["margin_gradient_penalty"][0] > 0
    for a, b in zip(robust.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    loaded.export(tmp_path / "served", verbose=0)
    served = tf.saved_model.load(tmp_path / "served").signatures["logits"]
    (name,) = served.structured_input_signature[1]
    np.testing.assert_allclose(
        served(**{name: tf.constant(X)})["logits"], loaded.logits(X), atol=1e-5
    )
    card = kj.serving.read_model_card(tmp_path / "served")
    assert card["settings"]["margin_gradient_weight"] == pytest.approx(0.7)


def test_a_penalty_without_gradients_gets_the_maps():
    maps = kj.LiveMaps(samples=None, grid=2)
    robust = hardened(MapMean(0.0, "map_mean"), live_maps=maps, **ALONE)
    logs = robust.train_on_batch(X, Y, return_dict=True)
    assert 0.0 < logs["map_mean_penalty"] < D_OWN_PENALTY
    assert logs["loss"] == pytest.approx(logs["task_loss"])


def test_penalties_beside_those_in_input_space():
    """Directional estimators record no gradients; one's own penalty may need them."""
    settings = {"estimator": "jvp", "norm": "squared", "selection": "all"}
    logs = hardened(MarginGradient(), **settings).train_on_batch(X, Y, return_dict=True)
    alone = hardened(MarginGradient(), **ALONE).train_on_batch(X, Y, return_dict=True)
    name = "margin_gradient_penalty"
    assert logs[name] == pytest.approx(alone[name], rel=1e-5)
    assert logs["fused_penalty"] > 0
