"""Change scores, perturbation maps and their estimate from a few random masks."""

from contextlib import nullcontext

import numpy as np
import pytest
import tensorflow as tf
from scipy.special import expit, rel_entr, softmax

from keras_jsigr.core.scores import predicted_targets
from keras_jsigr.saliency import explain, perturbation_map
from keras_jsigr.saliency.base import target_probability
from keras_jsigr.saliency.masks import compute_baseline as baseline
from keras_jsigr.saliency.masks import expand_map, interpolate, make_mask_bank
from keras_jsigr.saliency.occlusion import RISE
from keras_jsigr.saliency.perturbation import (
    bounded_score,
    change_score,
    expected_map,
    normalize_coefficients,
    perturbation_coefficients,
    perturbation_explainer,
    probability_drop,
    sampled_map,
    sarfa,
    squared_logits,
)

SCORES = ["squared_logits", "probability_drop", "sarfa"]


# ---- scores of a change


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


def test_one_logit_is_two_columns(rng):
    z, other = rng.normal(size=(2, 9, 1)).astype("float32")
    y = rng.integers(0, 2, (9, 1)).astype("float32")
    pad = lambda v: np.concatenate([np.zeros_like(v), v], 1)  # noqa: E731
    both = np.concatenate([1 - y, y], 1)
    for score in SCORES:
        one = change_score(tf.constant(z), tf.constant(other), y, score)
        two = change_score(tf.constant(pad(z)), tf.constant(pad(other)), both, score)
        np.testing.assert_allclose(one, two, atol=1e-6)


def test_probability_drop(rng):
    before, after = rng.normal(0, 2, (2, 50, 4))
    y = np.eye(4)[rng.integers(0, 4, 50)]
    drop = ((softmax(before, -1) - softmax(after, -1)) * y).sum(-1)
    got = probability_drop(before, after, y)
    np.testing.assert_allclose(got, np.maximum(drop, 0), atol=1e-6)
    # Of independent classes it is the mean.
    z, other, both = [[40.0, 40.0]], [[0.0, 40.0]], [[1.0, 1.0]]
    assert float(probability_drop(z, other, both, "sigmoid")[0]) == 0.25


def test_soft_targets_weigh_presence_and_absence(rng):
    for classes in (1, 3):
        z = rng.normal(0, 2, (5, classes)).astype("float32")
        soft = rng.random((5, classes)).astype("float32")
        kind = "sigmoid"
        present, absent = (target_probability(z, t * np.ones_like(z), kind) for t in (1, 0))
        np.testing.assert_allclose(present + absent, 1.0, atol=1e-6)
        expected = (soft * expit(z) + (1 - soft) * expit(-z)).mean(-1)
        np.testing.assert_allclose(target_probability(z, soft, kind), expected, rtol=1e-5)


def test_scores_are_float32_without_gradient():
    z = tf.constant([[1.0, 2.0, 0.5]], tf.float16)
    for score in SCORES:
        with tf.GradientTape() as tape:
            tape.watch(z)
            value = change_score(z, z * 0.5, [[0.0, 1.0, 0.0]], score)
        assert value.dtype == tf.float32
        assert tape.gradient(value, z) is None
    shifted = tf.constant([[1.0, 2.0]])
    assert float(squared_logits(shifted, shifted + 1.0)[0]) == 1.0


def test_bounded_scores():
    assert float(bounded_score([0.0], "squared_logits", 0.0)[0]) == 0.0
    np.testing.assert_allclose(bounded_score([3.0], "squared_logits", 1.0), 0.75)
    np.testing.assert_allclose(bounded_score([0.3], "sarfa"), 0.3)


# ---- maps from all masks


def test_linear_model_in_closed_form(images, rng):
    weights = rng.normal(size=(160, 3)).astype("float32")
    linear = lambda x: tf.reshape(x, (-1, 160)) @ weights  # noqa: E731
    bank = make_mask_bank((10, 8, 2), (3, 2))
    masks = bank.masks[None, ..., None]
    for kind in ("blur", "mean", "zero"):
        got = perturbation_coefficients(linear, images, None, bank, baseline=kind)
        away = images - baseline(images, kind).numpy()
        lost = (masks * away[:, None]).reshape(-1, 6, 160) @ weights
        expected = 0.5 * (lost**2).sum(-1)
        np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("score", SCORES)
def test_one_mask_at_a_time_by_hand(conv_net, images, score):
    bank = make_mask_bank((10, 8, 2), 2)
    z = conv_net(images)
    y = predicted_targets(z)
    expected = []
    for mask in bank.masks:
        m = expand_map(mask[None], images)
        other = conv_net(images * (1 - m) + baseline(images) * m)
        expected.append(change_score(z, other, y, score).numpy())
    got = perturbation_coefficients(conv_net, images, y, bank, score=score)
    np.testing.assert_allclose(got, np.transpose(expected), rtol=1e-3, atol=1e-6)
    maps = perturbation_map(conv_net, images, grid=2, score=score, normalize=False)
    np.testing.assert_allclose(maps, interpolate(bank, got), rtol=1e-3, atol=1e-6)
    maps = perturbation_map(conv_net, images, grid=2, score=score)
    unit = normalize_coefficients(got)
    np.testing.assert_allclose(maps, interpolate(bank, unit), rtol=1e-3, atol=1e-5)


def test_the_same_by_every_name(conv_net, images, labels):
    settings = {"baseline": "mean", "normalize": False}
    expected = perturbation_map(conv_net, images, labels, grid=3, **settings)
    method = {"method": "perturbation", "grid": 3}
    got = explain(conv_net, images, labels, **method, **settings)
    np.testing.assert_array_equal(got, expected)
    bank = make_mask_bank((10, 8, 2), 3)
    run = perturbation_explainer(conv_net, images[:1], bank, **settings)
    np.testing.assert_array_equal(run(images, labels), expected)
    expected = perturbation_map(conv_net, images, grid=3, score="sarfa")
    got = explain(conv_net, images, method="sarfa", grid=3)
    np.testing.assert_array_equal(got, expected)


def test_flat_images_have_empty_maps_and_faint_spots_do_not(conv_net):
    for score in SCORES:
        flat = np.full((4, 10, 8, 2), [[[[0.0]]], [[[0.3]]], [[[0.7]]], [[[1.0]]]])
        for kind in ("blur", "mean"):
            told = pytest.warns(UserWarning, match="All maps are zero")
            with told if score == "squared_logits" else nullcontext():
                maps = perturbation_map(conv_net, flat, score=score, baseline=kind)
            np.testing.assert_array_equal(maps, 0.0)
        faint = np.full((3, 10, 8, 2), 0.5, "float32")
        faint[:, 5, 4] += 1e-3
        assert perturbation_map(conv_net, faint, [0, 1, 2], score=score).max() > 0.1


def test_a_single_pixel_model_has_its_maximum_in_that_cell(rng):
    for score, pixel in zip(SCORES, [(3, 17), (12, 3), (19, 19)], strict=True):
        x = rng.random((4, 20, 20, 1)).astype("float32")
        x[:, pixel[0], pixel[1]] = 3.0

        def model(v, pixel=pixel):
            value = v[:, pixel[0], pixel[1], :]
            return tf.concat([2.0 * value, 0.0 * value, 0.0 * value], -1)

        maps = perturbation_map(model, x, grid=5, score=score)
        assert maps.shape == (4, 20, 20)
        for saliency in maps:
            peak = np.unravel_index(saliency.argmax(), saliency.shape)
            assert (peak[0] // 4, peak[1] // 4) == (pixel[0] // 4, pixel[1] // 4)


def test_modes_agree(conv_net, images):
    bank = make_mask_bank((10, 8, 2), 2)

    def run(x):
        return perturbation_coefficients(conv_net, x, None, bank)

    spec = tf.TensorSpec((None, 10, 8, 2), tf.float32)
    expected = run(images)
    for jit in (False, True):
        compiled = tf.function(run, input_signature=[spec], jit_compile=jit)
        got = compiled(tf.constant(images))
        assert got.shape == (11, 4)
        np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-6)


def test_nothing_flows_back(conv_net, images):
    x, bank = tf.constant(images), make_mask_bank((10, 8, 2), 2)
    weights = [w.value for w in conv_net.trainable_weights]

    @tf.function
    def gradients(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            z = conv_net(x)
            y = predicted_targets(z)
            found = perturbation_coefficients(conv_net, x, None, bank)
            drawn = sampled_map(conv_net, x, z, y, bank, seed=[0, 0])
        return tape.gradient([found, *drawn], [x, *weights], unconnected_gradients="zero")

    assert all(float(tf.reduce_max(tf.abs(g))) == 0.0 for g in gradients(x))


def test_error_messages(conv_net, images):
    z = tf.ones((1, 3))
    bank = make_mask_bank((4, 4, 1), 2)
    for call, message in (
        (lambda: change_score(z, z, None, "l2"), "Unknown `score`: got 'l2'"),
        (lambda: change_score(z, z, None, "sarfa"), "Got no targets"),
        (lambda: change_score(z, z, z, "sarfa", "sigmoid"), "independent classes"),
        (
            lambda: perturbation_coefficients(conv_net, images, None, bank),
            r"expected \(B, 4, 4, 1\)",
        ),
        (lambda: perturbation_map(z.__add__, z, baseline="noise"), "Unknown `baseline"),
        (lambda: perturbation_map(z.__add__, z, score="logit"), "Unknown `score`"),
        (lambda: perturbation_map(z.__add__, z, normalize=2), "Unknown `normalize`"),
        (lambda: perturbation_map(z.__add__, z, batch_size=0), "batch_size 0"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_many_calls_do_not_warn_of_retracing(conv_net, images, caplog, monkeypatch):
    monkeypatch.setattr(tf.get_logger(), "propagate", True)
    for _ in range(7):
        perturbation_map(conv_net, images[:2], grid=1)
    assert "retracing" not in caplog.text


# ---- maps from a few random masks


@pytest.mark.parametrize(("score", "samples"), list(zip(SCORES, [1, 3, 1], strict=True)))
def test_unbiased_within_four_standard_errors(conv_net, images, score, samples):
    x = tf.constant(images[:4])
    z = conv_net(x)
    y = predicted_targets(z)
    bank = make_mask_bank((10, 8, 2), 3)
    kwargs = {"score": score, "scale": 0.01}
    expected, mean = expected_map(conv_net, x, y, bank, **kwargs)
    draws = 800

    @tf.function
    def draw(seed):
        return sampled_map(conv_net, x, z, y, bank, seed=seed, samples=samples, **kwargs)

    maps, means = [], []
    for i in range(draws):
        one, typical = draw(tf.constant([i, 5]))
        maps.append(one.numpy())
        means.append(float(typical))
    error = np.std(maps, 0, ddof=1) / np.sqrt(draws)
    away = np.abs(np.mean(maps, 0) - expected)
    # 320 correlated pixels: 4.5 standard errors for the largest, 4 for the mean.
    assert np.all(away <= 4.5 * error + 1e-6)
    spread = np.std(means, ddof=1) / np.sqrt(draws)
    assert abs(np.mean(means) - float(mean)) <= 4 * spread


def test_all_masks_drawn_is_the_expected_map(conv_net, images):
    for score in SCORES:
        z = conv_net(images)
        y = predicted_targets(z)
        bank = make_mask_bank((10, 8, 2), 2)
        kwargs = {"score": score, "scale": tf.linspace(0.001, 0.1, 11)}
        expected, mean = expected_map(conv_net, images, y, bank, **kwargs)
        got, other = sampled_map(conv_net, images, z, y, bank, seed=[1, 2], samples=4, **kwargs)
        np.testing.assert_allclose(got, expected, atol=1e-5)
        assert float(mean) == pytest.approx(float(other), rel=1e-4)
        assert np.max(expected) <= 1.0


def test_draws_follow_the_seed_and_differ_between_examples(conv_net, images):
    x = np.repeat(images[:1], 40, 0)
    bank = make_mask_bank((10, 8, 2), 3)
    z = conv_net(x)
    draw = lambda seed: sampled_map(  # noqa: E731
        conv_net, x, z, None, bank, seed=seed, score="squared_logits", scale=1.0
    )[0].numpy()
    np.testing.assert_array_equal(draw([1, 2]), draw([1, 2]))
    assert not np.array_equal(draw([1, 2]), draw([1, 3]))
    assert len(np.unique(draw([1, 2]).reshape(40, -1).argmax(1))) == 9


def test_one_forward_pass_per_sample(images):
    calls = []

    def model(x):
        calls.append(1)
        return tf.reduce_sum(x, (1, 2))

    y, bank = [[1.0, 0.0]] * 11, make_mask_bank((10, 8, 2), 2)
    sampled_map(model, images, model(images), y, bank, seed=[0, 1], samples=2)
    assert len(calls) == 3


def test_compiled(conv_net, images):
    bank = make_mask_bank((10, 8, 2), 2)

    def run(x, seed, scale):
        settings = {"seed": seed, "score": "squared_logits", "scale": scale}
        return sampled_map(conv_net, x, conv_net(x), None, bank, **settings)[0]

    arguments = tf.constant(images), tf.constant([3, 4]), tf.constant(0.1)
    got = tf.function(run)(*arguments)
    np.testing.assert_allclose(got, run(*arguments), atol=1e-5)
    # XLA may draw other numbers from the same seed.
    assert tf.function(run, jit_compile=True)(*arguments).shape == (11, 10, 8)


def test_error_messages_of_sampled_maps(conv_net, images):
    bank = make_mask_bank((10, 8, 2), 2)
    call = lambda **k: sampled_map(  # noqa: E731
        conv_net, images, conv_net(images), None, bank, seed=[0, 0], **k
    )
    with pytest.raises(ValueError, match="from 1 to 4"):
        call(samples=5)
    with pytest.raises(ValueError, match="Got no scale"):
        call(score="squared_logits")
    with pytest.raises(ValueError, match="Got no targets"):
        call()
    with pytest.raises(ValueError, match="Got no scale"):
        expected_map(conv_net, images, None, bank, score="squared_logits")


def occluded(net, x, y, patches, value):
    """Return the mean loss of probability over the patches that cover a place."""
    rows = np.arange(len(x))
    before = net.probabilities(x)[rows, y]
    total, cover = np.zeros(x.shape[:-1]), np.zeros(x.shape[1:-1])
    for window in patches:
        other = x.copy()
        other[(slice(None), *window)] = value
        drop = before - net.probabilities(other)[rows, y]
        total[(slice(None), *window)] += drop.reshape(-1, *[1] * len(window))
        cover[window] += 1
    return total / cover


def windows(length, patch, starts):
    assert set(range(length)) == {s + i for s in starts for i in range(patch)}
    return [slice(s, s + patch) for s in starts]


def test_occlusion_by_hand(net, images, labels):
    # Patches of 3 in steps of 2 leave the last of 10 rows: one more ends there.
    down, across = windows(10, 3, [0, 2, 4, 6, 7]), windows(8, 2, [0, 2, 4, 6])
    patches = [(a, b) for a in down for b in across]
    settings = {"method": "occlusion", "patch": (3, 2), "stride": 2, "baseline": 0.2}
    got = explain(net, images, labels, **settings)
    expected = occluded(net, images, labels, patches, 0.2)
    np.testing.assert_allclose(got, expected, atol=1e-6)
    low = {"baseline": "zero", "input_range": (0.2, 1.0)}
    same = explain(net, images, labels, **{**settings, **low})
    np.testing.assert_array_equal(same, got)


def test_occlusion_of_sequences_and_features(make_net, rng):
    x, y = rng.random((4, 9, 2)).astype("float32"), np.array([0, 1, 2, 0])
    got = explain(make_net((9, 2)), x, y, method="occlusion", patch=4, stride=3)
    patches = [(w,) for w in windows(9, 4, [0, 3, 5])]
    expected = occluded(make_net((9, 2)), x, y, patches, 0.0)
    np.testing.assert_allclose(got, expected, atol=1e-6)
    # Features: one at a time by default.
    flat = rng.random((4, 7)).astype("float32")
    got = explain(make_net((7,)), flat, y, method="occlusion")
    wide, each = make_net((7,)), [(slice(i, i + 1),) for i in range(7)]
    expected = occluded(wide, flat[..., np.newaxis], y, each, 0.0)
    np.testing.assert_allclose(got, expected, atol=1e-6)


def test_occlusion_finds_the_one_pixel_that_matters():
    x = np.full((2, 14, 14, 1), 0.5, "float32")
    x[0, 3, 10], x[1, 12, 2] = 1.0, 1.0

    def model(v):
        top = tf.reduce_max(v, (1, 2))
        return tf.concat([8.0 * top, 4.0 + 0.0 * top], -1)

    maps = explain(model, x, method="occlusion", patch=3, stride=1)
    for saliency, spot in zip(maps, [(3, 10), (12, 2)], strict=True):
        assert saliency[spot] == saliency.max() > 0.1
        assert np.abs(saliency[7:9, 5:8]).max() < 1e-6


def test_rise_by_hand(net, images, labels):
    for score in ("prob", "logit"):
        method = RISE(samples=20, grid=(3, 2), keep=0.4, seed=2, score=score, baseline=0.1)
        masks = method.masks_of("image", (10, 8))(tf.constant(0), tf.constant(20)).numpy()
        total = 0.0
        for mask in masks:
            other = 0.1 + mask[..., np.newaxis] * (images - 0.1)
            values = (net.probabilities if score == "prob" else net.logits)(other)
            total += values[np.arange(11), labels].reshape(-1, 1, 1) * mask
        got = explain(net, images, labels, method=method)
        np.testing.assert_allclose(got, total / masks.sum(0), rtol=1e-4, atol=1e-5)


def test_rise_masks_are_shifted_bilinear_grids():
    method = RISE(samples=4000, grid=(3, 2), keep=0.3)
    make = method.masks_of("image", (9, 8))
    masks = make(tf.constant(0), tf.constant(4000)).numpy()
    assert masks.shape == (4000, 9, 8)
    assert masks.min() >= 0
    assert masks.max() <= 1 + 1e-6
    # Every place is kept with the same probability.
    error = masks.std(0) / np.sqrt(len(masks))
    assert (np.abs(masks.mean(0) - 0.3) < 4.5 * error).all()
    # Bilinear: within a cell of 3 x 4 pixels second differences vanish, so at most one
    # in three (of seven places) is not zero along the first axis.
    bends = np.abs(np.diff(masks, 2, axis=1)).max(2) > 1e-5
    assert (bends.sum(1) <= 6).all()
    assert 0 < bends.mean() < 0.9
    # A mask is the same in whatever group it is made.
    some = make(tf.constant(7), tf.constant(2)).numpy()
    np.testing.assert_array_equal(some, masks[7:9])
    other = RISE(samples=4000, grid=(3, 2), keep=0.3, seed=1)
    fresh = other.masks_of("image", (9, 8))(tf.constant(0), tf.constant(9)).numpy()
    assert np.abs(fresh - masks[:9]).max() > 0.5


def test_rise_of_sequences_and_features(rng):
    def model(v):
        there = tf.reshape(v[:, 8], (tf.shape(v)[0], -1))[:, :1]
        return tf.concat([6.0 * there, 3.0 + 0.0 * there], -1)

    for shape in ((12, 2), (12,)):
        x = 0.5 + rng.random((3, *shape)).astype("float32") / 2
        maps = explain(model, x, method="rise", samples=400, grid=6)
        assert maps.shape == (3, 12)
        assert (maps.argmax(1) == 8).all()
        assert maps.max() <= 1


def test_refused(net, images):
    wrong = [
        ("occlusion", {"patch": 0}, "`patch` is out of range: got 0"),
        ("occlusion", {"patch": 9}, r"Got patch \(9, 9\) for maps of shape \(10, 8\)"),
        ("occlusion", {"stride": (1, 2, 3)}, "expected one number or one per axis"),
        ("occlusion", {"patch": 2, "stride": (2, 3)}, "a stride of at most the patch"),
        ("occlusion", {"score": "sarfa"}, "Unknown `score`: got 'sarfa'"),
        ("rise", {"samples": 0}, "`samples` is out of range: got 0"),
        ("rise", {"keep": 1.5}, "`keep` is out of range: got 1.5, expected a share"),
        ("rise", {"grid": (2, 2, 2)}, "Got grid"),
        ("rise", {"baseline": "grey"}, "Unknown `baseline`"),
    ]
    for method, settings, message in wrong:
        with pytest.raises(ValueError, match=message):
            explain(net, images, method=method, **settings)
