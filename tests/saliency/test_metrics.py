"""Metrics of maps against closed forms, SciPy and loops."""

import keras
import numpy as np
import pytest
import scipy.integrate
import scipy.stats
import tensorflow as tf

import keras_jsigr as kj
from keras_jsigr.saliency import gradient_map
from keras_jsigr.saliency.gradients import gradient_explainer
from keras_jsigr.saliency.masks import compute_baseline as baseline
from keras_jsigr.saliency.metrics import (
    agreement,
    alignment,
    control_map,
    deletion,
    exchange_curve,
    gini,
    insertion,
    local_lipschitz,
    pointing_game,
    randomization,
    rank_correlation,
    relevance_mass,
    ssim,
    top_k_intersection,
)
from keras_jsigr.saliency.metrics.faithfulness import exchange_counts
from keras_jsigr.saliency.metrics.similarity import average_ranks


def total(x):
    return tf.reduce_sum(x, axis=list(range(1, x.shape.rank)))


@pytest.fixture
def ramp():
    """1/10, ..., 10/10 in another order for each example."""
    rng = np.random.default_rng(0)
    rows = [rng.permutation(np.arange(1, 11)) / 10 for _ in range(4)]
    return np.array(rows, "float32")


def test_areas_of_a_sum_are_known(ramp):
    # Of n values k/n the sum falls as n (n + 1) / 2n - k (2n + 1 - k) / 2n: as the map
    # is the input itself, no order has a smaller deletion or a larger insertion.
    n = 10
    k = np.arange(n + 1)
    curve = (n * (n + 1) - k * (2 * n + 1 - k)) / (2 * n)
    area = scipy.integrate.trapezoid(curve, dx=1 / n)
    settings = {"steps": n, "baseline": "zero"}
    found = deletion(total, ramp, ramp, **settings)
    np.testing.assert_allclose(found, np.full(4, area), rtol=1e-6)
    put_in = insertion(total, ramp, ramp, **settings)
    np.testing.assert_allclose(put_in, np.full(4, curve[0] - area), rtol=1e-6)
    # Backwards, the two change roles.
    np.testing.assert_allclose(deletion(total, ramp, -ramp, **settings), put_in, 1e-6)


def test_a_random_order_is_between(ramp):
    x = np.repeat(ramp, 100, axis=0)
    order = control_map(x, "random", seed=(3, 4))
    found = deletion(total, x, order, steps=10, baseline="zero").numpy()
    assert abs(found.mean() - 2.75) < 4 * found.std() / 20


def test_curves_are_those_of_a_loop(rng):
    x = rng.random((3, 6, 5, 2), dtype=np.float32)
    maps = rng.random((3, 6, 5), dtype=np.float32)
    w = rng.normal(size=60).astype("float32")
    end = baseline(x, "blur").numpy()

    def score(x):
        return tf.tanh(tf.linalg.matvec(tf.reshape(x, (-1, 60)), w))

    for steps in (1, 28):
        expected = np.zeros((3, steps + 1))
        for i in range(3):
            order = np.argsort(-maps[i].ravel())
            for k in range(steps + 1):
                point = x[i].copy().reshape(30, 2)
                chosen = order[: int(np.floor(30 * k / steps + 0.5))]
                point[chosen] = end[i].reshape(30, 2)[chosen]
                expected[i, k] = np.tanh(point.ravel() @ w)
        found = exchange_curve(score, x, end, maps, steps=steps)
        np.testing.assert_allclose(found, expected, atol=1e-5)
        area = scipy.integrate.trapezoid(expected, dx=1 / steps, axis=1)
        found = deletion(score, x, maps, steps=steps)
        np.testing.assert_allclose(found, area, atol=1e-5)


def test_counts_of_many_pixels_and_steps():
    for n, steps in ((10, 3), (33_000, 33_000), (400**2, 400**2)):
        expected = np.floor(n * np.arange(steps + 1) / steps + 0.5)
        np.testing.assert_array_equal(exchange_counts(n, steps), expected)


def test_insertion_starts_where_deletion_ends(images):
    maps = control_map(images, "intensity")
    for kind in ("blur", "mean", "zero"):
        ends = []
        for metric in (deletion, insertion):
            seen = []

            def score(x, seen=seen):
                seen.append(x.numpy())
                return total(x)

            metric(score, images, maps, steps=2, baseline=kind, low=0.5)
            assert len(seen) == 3
            ends.append((seen[0], seen[-1]))
        np.testing.assert_array_equal(ends[0][0], images)
        np.testing.assert_array_equal(ends[0][1], baseline(images, kind, low=0.5))
        np.testing.assert_array_equal(ends[0], ends[1][::-1])


def test_compiles_for_any_batch_size(ramp):
    @tf.function(autograph=False, input_signature=[tf.TensorSpec((None, 10), tf.float32)])
    def area(x):
        return deletion(total, x, x, steps=5, baseline="zero")

    whole = area(ramp).numpy()
    np.testing.assert_allclose(whole[1:3], area(ramp[1:3]), rtol=1e-6)
    assert area(ramp[:0]).shape == (0,)
    assert area.experimental_get_tracing_count() == 1


def test_steps_are_checked(ramp):
    for steps in (0, 11, 2.0):
        with pytest.raises(ValueError, match="integer from 1 to 10"):
            deletion(total, ramp, ramp, steps=steps)


def test_the_gradient_map_of_a_linear_model_does_not_move(rng):
    w = rng.normal(size=(6, 3)).astype("float32")
    x = rng.random((4, 6), dtype=np.float32)
    explain = gradient_explainer(lambda x: x @ w, x[:1], score="logit")
    targets = tf.one_hot([0, 1, 2, 0], 3)
    found = local_lipschitz(lambda x: explain.core(x, targets), x, radius=0.1)
    np.testing.assert_array_equal(found, np.zeros(4))


def test_a_turning_map_has_the_constant_of_its_angle():
    # The map (cos a x, sin a x) turns by a radians per unit: chords over distances
    # reach a, and stay below it.
    a = 3.0
    x = np.full((5, 1), 0.5, "float32")

    def turning(x):
        return tf.concat([tf.cos(a * x), tf.sin(a * x)], axis=1)

    found = local_lipschitz(turning, x, radius=0.05, samples=50).numpy()
    assert np.all(found < a * (1 + 1e-4))
    np.testing.assert_allclose(found, np.full(5, a), rtol=1e-3)
    scaled = local_lipschitz(lambda x: 9 * turning(x), x, radius=0.05, samples=50)
    np.testing.assert_allclose(scaled, found, rtol=1e-4)


def test_points_stay_in_the_box_and_the_range():
    seen = []

    def remember(x):
        seen.append(x.numpy())
        return x + 1.0

    x = np.array([[0.0, 0.5], [1.0, 0.02]], "float32")
    local_lipschitz(remember, x, radius=0.1, samples=30)
    points = np.stack(seen[1:])
    assert points.shape == (30, 2, 2)
    assert points.min() >= 0.0
    assert points.max() <= 1.0
    away = np.abs(points - x).max(0)
    assert np.all(away <= 0.1 + 1e-6)
    assert np.all(away > 0.08)


def test_more_points_find_at_least_as_much(rng):
    x = rng.random((20, 3), dtype=np.float32)
    few, many = (
        local_lipschitz(lambda x: x**2 + 0.1, x, radius=0.1, samples=n).numpy() for n in (2, 20)
    )
    assert np.all(many >= few)
    assert many.mean() > few.mean()
    zero = local_lipschitz(tf.zeros_like, x, radius=0.1)
    np.testing.assert_array_equal(zero, np.zeros(20))


def test_a_hardened_model_knows_radius_and_range(conv_net):
    robust = kj.harden(conv_net, epsilon=0.25, input_range=(-1.0, 1.0), verbose=0)
    seen = []

    def remember(x):
        seen.append(x.numpy())
        return x + 2.0

    local_lipschitz(remember, np.full((1, 2), -1.0, "float32"), model=robust)
    points = np.stack(seen[1:])
    assert -1.0 == points.min() < -0.9 < points.max() <= -0.75


def test_radius_and_samples_are_checked(conv_net):
    x = np.ones((1, 2), "float32")
    for settings, message in (
        ({"radius": 0.0}, "positive number in input units"),
        ({}, "pass a hardened `model`"),
        ({"model": conv_net}, "pass a hardened `model`"),
        ({"radius": 0.1, "samples": 0}, "positive integer"),
    ):
        with pytest.raises(ValueError, match=message):
            local_lipschitz(tf.identity, x, **settings)


PAIRS = [rank_correlation, top_k_intersection, ssim]


@pytest.fixture
def maps(rng):
    return rng.random((6, 12, 13), dtype=np.float32)


@pytest.fixture
def others(rng, maps):
    return (maps + rng.random(maps.shape)).astype("float32")


def test_rank_correlation_is_that_of_scipy(maps, others):
    for one, other in ((maps, others), (np.round(4 * maps), np.round(3 * others))):
        expected = [
            scipy.stats.spearmanr(a.ravel(), b.ravel()).statistic
            for a, b in zip(one, other, strict=True)
        ]
        np.testing.assert_allclose(rank_correlation(one, other), expected, atol=1e-6)
    # It sees the order alone.
    found = rank_correlation(np.exp(3 * maps), others)
    np.testing.assert_array_equal(found, rank_correlation(maps, others))


def test_average_ranks_are_those_of_scipy(rng):
    rows = rng.integers(-3, 4, (5, 40)).astype("float32")
    rows[0, :2] = 0.0, -0.0
    expected = scipy.stats.rankdata(rows, axis=1)
    np.testing.assert_array_equal(average_ranks(rows), expected)


def test_rank_correlation_of_large_maps_is_exact(rng):
    order = rng.permutation(224 * 224).astype("float32")[None]
    assert float(rank_correlation(order, 2 * order)[0]) == 1.0
    assert float(rank_correlation(order, -order)[0]) == -1.0


def test_top_k_counts_shared_pixels(maps, others):
    k = round(0.1 * 156)
    tops = [[set(np.argsort(-m.ravel())[:k]) for m in each] for each in (maps, others)]
    expected = [len(a & b) / k for a, b in zip(*tops, strict=True)]
    np.testing.assert_allclose(top_k_intersection(maps, others), expected, atol=1e-7)


def test_top_k_of_unrelated_maps_is_the_share(rng):
    a, b = rng.random((2, 400, 200)).astype("float32")
    found = top_k_intersection(a, b, top=0.2).numpy()
    assert abs(found.mean() - 0.2) < 4 * found.std() / 20


def test_top_k_of_ties_takes_the_first():
    a = tf.constant([[1.0, 1.0, 1.0, 0.0]])
    b = tf.constant([[1.0, 0.5, 0.0, 0.0]])
    np.testing.assert_array_equal(top_k_intersection(a, b, top=0.5), [1.0])


def test_ssim_of_identical_maps_is_one(maps):
    np.testing.assert_allclose(ssim(maps, 7.0 * maps), np.ones(6), atol=1e-6)


def test_ssim_is_that_of_a_single_window(rng):
    # Maps of 5 pixels have one window: a weighted mean, variance and covariance.
    a, b = rng.random((2, 3, 5, 5)).astype("float32")
    a, b = (m / m.max((1, 2), keepdims=True) for m in (a, b))
    line = np.exp(-((np.arange(5) - 2.0) ** 2) / (2 * 1.5**2))
    window = np.outer(line, line) / line.sum() ** 2

    def mean(values):
        return (window * values).sum((1, 2))

    va, vb = mean(a * a) - mean(a) ** 2, mean(b * b) - mean(b) ** 2
    covariance = mean(a * b) - mean(a) * mean(b)
    c1, c2 = 0.01**2, 0.03**2
    expected = (2 * mean(a) * mean(b) + c1) / (mean(a) ** 2 + mean(b) ** 2 + c1)
    expected *= (2 * covariance + c2) / (va + vb + c2)
    np.testing.assert_allclose(ssim(a, b), expected, atol=1e-5)


def test_agreement_is_measured_three_ways(maps, others):
    found = agreement(maps, others)
    flat = maps.reshape(6, -1), others.reshape(6, -1)
    cosine = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in zip(*flat, strict=True)]
    np.testing.assert_allclose(found.cosine, cosine, atol=1e-6)
    np.testing.assert_array_equal(found.rank, rank_correlation(maps, others))
    halves = [m > np.median(m, axis=1, keepdims=True) for m in flat]
    union = (halves[0] | halves[1]).sum(1)
    expected = (halves[0] & halves[1]).sum(1) / union
    np.testing.assert_allclose(found.overlap, expected, atol=1e-6)


def test_opposite_maps_disagree():
    maps = np.arange(10, dtype="float32")[None]
    found = agreement(maps - 4.5, 4.5 - maps)
    assert [float(part[0]) for part in found] == pytest.approx([-1.0, -1.0, 0.0])


def test_constant_maps_agree_with_nothing(maps):
    for flat in (np.zeros_like(maps), np.full_like(maps, 0.3)):
        for a, b in ((flat, maps), (maps, flat), (flat, flat)):
            np.testing.assert_array_equal(rank_correlation(a, b), np.zeros(6))
            np.testing.assert_array_equal(top_k_intersection(a, b), np.zeros(6))
    zero = np.zeros_like(maps)
    np.testing.assert_array_equal(agreement(zero, maps).cosine, np.zeros(6))
    np.testing.assert_array_equal(ssim(zero, zero), np.ones(6))


@pytest.mark.parametrize("metric", PAIRS)
def test_pairs_of_maps_contract(metric, maps, others):
    whole = metric(maps, others).numpy()
    assert whole.shape == (6,)
    assert whole.dtype == np.float32
    single = [metric(maps[i : i + 1], others[i : i + 1]).numpy() for i in range(6)]
    np.testing.assert_allclose(whole, np.concatenate(single), atol=1e-6)
    spec = tf.TensorSpec((None, 12, 13), tf.float32)
    compiled = tf.function(metric, [spec, spec], autograph=False)
    np.testing.assert_allclose(compiled(maps, others), whole, atol=1e-6)
    assert compiled(maps[:0], others[:0]).shape == (0,)
    assert compiled.experimental_get_tracing_count() == 1
    with pytest.raises(ValueError, match="expected the same shape"):
        metric(maps, maps[:, :5])


def test_bad_settings_are_refused(maps):
    with pytest.raises(ValueError, match="above 0 and below 1"):
        top_k_intersection(maps, maps, top=1.0)
    with pytest.raises(ValueError, match="with a batch"):
        rank_correlation(maps[0, 0], maps[0, 0])
    with pytest.raises(ValueError, match="expected the same shape"):
        agreement(maps, maps[:, :5])


BOX = np.array([[2, 1, 5, 3]])


@pytest.fixture
def planted():
    """The maximum and 3/4 of the mass lie in the box."""
    maps = np.zeros((1, 6, 7), "float32")
    maps[0, 1, 4], maps[0, 2, 2] = 2.0, 1.0
    maps[0, 3, 4] = 1.0
    return maps


def test_gini_has_closed_forms():
    for n in (1, 2, 50):
        one_hot, ramp = np.eye(n)[:1], np.arange(1.0, n + 1)[None]
        np.testing.assert_allclose(gini(one_hot), [1 - 1 / n], atol=1e-6)
        np.testing.assert_allclose(gini(ramp), [(n - 1) / (3 * n)], atol=1e-6)
        np.testing.assert_allclose(gini(np.ones((1, n))), [0.0], atol=1e-6)
    np.testing.assert_array_equal(gini(np.zeros((2, 3))), [0.0, 0.0])


def test_gini_is_half_the_mean_difference_over_the_mean(rng):
    maps = rng.random((4, 5, 6), dtype=np.float32)
    flat = maps.reshape(4, -1)
    differences = np.abs(flat[:, :, None] - flat[:, None]).mean((1, 2))
    np.testing.assert_allclose(gini(maps), differences / 2 / flat.mean(1), atol=1e-6)
    for same in (-maps, 1e-30 * maps, 1e30 * maps, maps[:, ::-1]):
        np.testing.assert_allclose(gini(same), gini(maps), atol=1e-6)


def test_alignment_of_a_linear_model_is_the_distance_to_its_zero(rng):
    x = rng.random((5, 4), dtype=np.float32)
    w = rng.normal(size=(4, 3)).astype("float32")
    gradients = gradient_map(lambda x: x @ w, x, score="logit", reduce=False)
    winning = (x @ w).argmax(1)
    distance = np.abs((x @ w).max(1)) / np.linalg.norm(w[:, winning], axis=0)
    found = alignment(x, gradients)
    np.testing.assert_allclose(found.length, distance, rtol=1e-5)
    expected = distance / np.linalg.norm(x, axis=1)
    np.testing.assert_allclose(found.cosine, expected, rtol=1e-5)
    tiny = alignment(x, 1e-30 * gradients)
    np.testing.assert_allclose(tiny.length, distance, rtol=1e-5)
    # Without gradient or input it is zero.
    x = np.array([[1.0, 2.0], [0.0, 0.0]], "float32")
    for part in alignment(x, x[::-1]):
        np.testing.assert_array_equal(part, [0.0, 0.0])


def test_a_planted_box_is_found(planted):
    np.testing.assert_array_equal(pointing_game(planted, BOX), [1.0])
    np.testing.assert_allclose(relevance_mass(planted, BOX), [0.75])
    np.testing.assert_allclose(relevance_mass(-planted, BOX), [0.75])


def test_corners_and_axes_are_kept_apart(planted):
    # x is the column: the transposed box holds other pixels.
    np.testing.assert_array_equal(pointing_game(planted, BOX[:, [1, 0, 3, 2]]), [0.0])
    for box, hit in (([4, 1, 5, 2], 1.0), ([0, 1, 4, 2], 0.0), ([5, 1, 7, 2], 0.0)):
        np.testing.assert_array_equal(pointing_game(planted, [box]), [hit])
    np.testing.assert_array_equal(pointing_game(planted, [[0, 1, 4, 2]], margin=1), [1])


def test_flat_maps_point_nowhere():
    everywhere = [[0, 0, 3, 3]]
    np.testing.assert_array_equal(pointing_game(np.ones((1, 3, 3)), everywhere), [0.0])
    np.testing.assert_array_equal(relevance_mass(np.zeros((1, 3, 3)), everywhere), [0])
    half = relevance_mass(np.ones((1, 4, 4)), [[0, 0, 4, 2]])
    np.testing.assert_array_equal(half, [0.5])


def test_boxes_need_images_and_four_corners(planted):
    for metric in (pointing_game, relevance_mass):
        with pytest.raises(ValueError, match=r"expected \(B, 4\)"):
            metric(planted, [[0, 0, 1]])
        with pytest.raises(ValueError, match=r"expected \(B, H, W\)"):
            metric(planted[0], BOX)


def test_controls_know_the_image_or_nothing(images):
    bright = control_map(images, "intensity", low=0.25)
    np.testing.assert_allclose(bright, np.abs(images - 0.25).sum(-1), rtol=1e-6)
    one, other = (control_map(images, "random", seed=(0, s)).numpy() for s in (1, 2))
    assert one.shape == images.shape[:3]
    assert not np.array_equal(one, other)
    np.testing.assert_array_equal(one, control_map(0 * images, "random", seed=(0, 1)))
    grey = control_map(images[..., 0], "intensity", layout="image")
    np.testing.assert_array_equal(grey, images[..., 0])
    with pytest.raises(ValueError, match="Unknown `kind`"):
        control_map(images, "bright")


def test_examples_with_boxes_do_not_depend_on_each_other(rng):
    maps = rng.random((5, 6, 7), dtype=np.float32)
    boxes = np.array([[0, 0, 3, 3], [1, 1, 7, 6], [2, 2, 3, 3], [0, 0, 7, 6], BOX[0]])
    for metric in (pointing_game, relevance_mass):
        single = [metric(maps[i : i + 1], boxes[i : i + 1])[0] for i in range(5)]
        np.testing.assert_allclose(metric(maps, boxes), tf.stack(single), rtol=1e-6)


@keras.saving.register_keras_serializable(package="tests")
class Fixed(keras.Layer):
    """Class scores whose gradient map does not depend on the weights."""

    def build(self, shape):
        self.scale = self.add_weight(shape=(3,), initializer="random_normal")

    def call(self, x):
        return keras.ops.sum(x**2, axis=(1, 2, 3))[:, None] * self.scale


def explained(net, x, score="logit"):
    return gradient_explainer(net, x[:1], score=score, batch_size=4)


def test_a_map_that_ignores_the_weights_is_found_out(images):
    net = keras.Sequential([keras.Input((10, 8, 2)), Fixed()])
    (found,) = randomization(explained(net, images), net, images).values()
    np.testing.assert_allclose(found, np.ones(11), atol=1e-6)


def test_shuffled_linear_maps_are_unrelated(rng):
    x = rng.random((3, 900), dtype=np.float32)
    net = keras.Sequential([keras.Input((900,)), keras.layers.Dense(4)])
    found = randomization(explained(net, x), net, x, [0, 1, 2])
    assert list(found) == [net.layers[0].name]
    # The standard error of a correlation of n unrelated values is 1 / sqrt(n - 1).
    assert np.all(np.abs(found[net.layers[0].name]) < 4 / np.sqrt(899))


@pytest.mark.parametrize("order", ["cascading", "independent"])
def test_maps_are_those_of_a_network_with_shuffled_weights(conv_net, images, order):
    y = np.arange(11) % 3
    before = explained(conv_net, images)(images, y)
    kept = [w.copy() for w in conv_net.get_weights()]
    explain = explained(conv_net, images)
    found = randomization(explain, conv_net, images, y, order=order, seed=5)
    for now, then in zip(conv_net.get_weights(), kept, strict=True):
        np.testing.assert_array_equal(now, then)
    np.testing.assert_array_equal(explain(images, y), before)

    # By hand: the same draws, into the weights of a copy.
    rng = np.random.default_rng(5)
    copy = keras.models.clone_model(conv_net)
    copy.set_weights(kept)
    for layer in (conv_net.layers[4], conv_net.layers[1], conv_net.layers[0]):
        twin = copy.layers[conv_net.layers.index(layer)]
        if order == "independent":
            copy.set_weights(kept)
        twin.set_weights(
            [rng.permutation(w.reshape(-1)).reshape(w.shape) for w in twin.get_weights()]
        )
        expected = rank_correlation(before, explained(copy, images)(images, y))
        np.testing.assert_allclose(found[layer.name], expected, atol=1e-3)


def test_softmax_head_and_own_decisions(images):
    net = keras.Sequential(
        [
            keras.Input((10, 8, 2)),
            keras.layers.Flatten(),
            keras.layers.Dense(5, activation="softmax"),
        ]
    )
    (found,) = randomization(explained(net, images, "margin"), net, images).values()
    assert found.shape == (11,)
    assert abs(found.mean()) < 0.3


def test_shared_and_nested_layers_are_shuffled_once(images):
    shared = keras.layers.Dense(2)
    inputs = keras.Input((10, 8, 2))
    inner = keras.Model(inputs, shared(shared(inputs)))
    net = keras.Sequential([inner, keras.layers.Flatten(), keras.layers.Dense(3)])
    net.build((None, 10, 8, 2))
    found = randomization(explained(net, images), net, images)
    assert len(found) == 2


def test_what_cannot_be_shuffled_is_refused(images):
    flat = keras.Sequential([keras.Input((10, 8, 2)), keras.layers.Flatten()])
    explain = explained(flat, images)
    with pytest.raises(ValueError, match="has no weights"):
        randomization(explain, flat, images)
    with pytest.raises(TypeError, match="expected a Keras model"):
        randomization(explain, lambda x: x, images)
    with pytest.raises(ValueError, match="Unknown `order`"):
        randomization(explain, flat, images, order="top")
