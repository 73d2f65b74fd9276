"""Occlusion and RISE by NumPy."""

import numpy as np
import pytest
import tensorflow as tf

from keras_jsigr.saliency import explain
from keras_jsigr.saliency.occlusion import RISE


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


@pytest.mark.parametrize("score", ["prob", "logit"])
def test_rise_by_hand(net, images, labels, score):
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


@pytest.mark.parametrize("shape", [(12, 2), (12,)])
def test_rise_of_sequences_and_features(rng, shape):
    x = 0.5 + rng.random((3, *shape)).astype("float32") / 2

    def model(v):
        there = tf.reshape(v[:, 8], (-1, 2 if len(shape) == 2 else 1))[:, :1]
        return tf.concat([6.0 * there, 3.0 + 0.0 * there], -1)

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
