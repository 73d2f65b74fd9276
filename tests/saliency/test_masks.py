"""Layouts, baselines and mask banks against SciPy and closed forms."""

import pickle
from functools import partial

import numpy as np
import pytest
import tensorflow as tf
from scipy.ndimage import gaussian_filter, gaussian_filter1d

from keras_jsigr.saliency import perturbation_map
from keras_jsigr.saliency.masks import (
    MaskBank,
    expand_map,
    interpolate,
    make_mask_bank,
    resolve_layout,
)
from keras_jsigr.saliency.masks import compute_baseline as baseline


def test_blur_equals_scipy(images):
    for sigma in (0.6, 1.0, 2.5, 9.0):
        expected = gaussian_filter(images.astype(float), (0, sigma, sigma, 0))
        np.testing.assert_allclose(baseline(images, sigma=sigma), expected, atol=2e-6)
        one = images[..., :1]
        expected = gaussian_filter(one.astype(float), (0, sigma, sigma, 0))
        np.testing.assert_allclose(baseline(one, sigma=sigma), expected, atol=2e-6)
        grey = baseline(one[..., 0], sigma=sigma, layout="image")
        np.testing.assert_allclose(grey, expected[..., 0], atol=2e-6)


def test_default_sigmas(rng):
    x = rng.random((2, 60, 100, 1))
    expected = gaussian_filter(x, (0, 3.0, 3.0, 0))
    np.testing.assert_allclose(baseline(x), expected, atol=1e-6)
    x = rng.random((2, 160, 3))
    expected = gaussian_filter1d(x, 6.0, axis=1)
    np.testing.assert_allclose(baseline(x), expected, atol=1e-6)


def test_means_are_per_example_and_channel(images):
    expected = np.broadcast_to(images.mean((1, 2), keepdims=True), images.shape)
    np.testing.assert_allclose(baseline(images, "mean"), expected, atol=1e-6)
    table = images[:, :, 0, 0]
    for kind in ("mean", "blur"):
        expected = np.broadcast_to(table.mean(1, keepdims=True), table.shape)
        np.testing.assert_allclose(baseline(table, kind), expected, atol=1e-6)
    np.testing.assert_array_equal(baseline(images, "zero", low=-1.0), -1.0)


def test_modes_and_types_agree(images):
    for kind in ("blur", "mean", "zero"):
        for dtype, jit, atol in (
            ("float16", False, 1e-3),
            ("bfloat16", True, 1e-2),
            ("float32", True, 1e-6),
            ("float64", False, 1e-6),
        ):
            x = tf.cast(images, dtype)
            spec = tf.TensorSpec((None, *images.shape[1:]), dtype)
            blank = partial(baseline, kind=kind)
            compiled = tf.function(blank, [spec], autograph=False, jit_compile=jit)
            got = compiled(x)
            assert got.dtype == dtype
            assert got.shape == x.shape
            wide = baseline(tf.cast(x, "float32"), kind)
            np.testing.assert_allclose(tf.cast(got, "float32"), wide, atol=atol)
        # No example depends on its batch.
        one = baseline(images[2:3], kind)
        np.testing.assert_allclose(baseline(images, kind)[2:3], one, atol=1e-6)


def test_integers_become_float32():
    x = np.arange(16, dtype="uint8").reshape(1, 4, 4, 1)
    assert baseline(x).dtype == "float32"
    np.testing.assert_allclose(baseline(x, "mean"), 7.5)


def test_unknown_kind_and_long_axis():
    with pytest.raises(ValueError, match="Unknown `baseline`: got 'noise'"):
        baseline(np.ones((1, 3)), "noise")
    with pytest.raises(ValueError, match="at most 2048"):
        baseline(np.ones((1, 3000, 1)))


BANKS = [
    ((28, 28, 1), 5, 25, (28, 28)),
    ((30, 17, 3), (3, 4), 12, (30, 17)),
    ((6, 6, 1), 1, 1, (6, 6)),
    ((40, 3), 5, 25, (40,)),
    ((9, 3), 5, 9, (9,)),
    ((13,), 5, 13, (13,)),
    ((100,), 5, 25, (100,)),
]


def test_hats_are_a_partition_of_unity_and_masks_peak_at_one():
    for shape, grid, size, map_shape in BANKS:
        bank = make_mask_bank(shape, grid)
        assert bank.size == size
        assert bank.masks.shape == bank.hats.shape == (size, *map_shape)
        assert bank.masks.dtype == bank.hats.dtype == np.float32
        np.testing.assert_allclose(bank.hats.sum(0), 1.0, atol=1e-6)
        assert bank.hats.min() >= 0.0
        assert bank.masks.min() >= 0.0
        axes = tuple(range(1, bank.masks.ndim))
        np.testing.assert_array_equal(bank.masks.max(axes), 1.0)


def test_masks_equal_scipy_blur_of_discs():
    bank = make_mask_bank((28, 21, 1), (4, 3))
    assert bank.sigma == pytest.approx(24.5 * 5 / 80)
    rows, columns = np.mgrid[:28, :21] + 0.5
    for k, (i, j) in enumerate(np.ndindex(4, 3)):
        centre = (i + 0.5) * 7, (j + 0.5) * 7
        disc = (rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 <= 1.0
        blurred = gaussian_filter(disc.astype(float), bank.sigma)
        np.testing.assert_allclose(bank.masks[k], blurred / blurred.max(), atol=1e-6)


def test_masks_of_long_sequences_are_blurred_as_scipy_does():
    bank = make_mask_bank((5000, 1), 5)
    rows = np.zeros((25, 5000))
    near = np.abs(np.arange(5000) + 0.5 - (np.arange(25)[:, None] + 0.5) * 200) <= 1.0
    rows[near] = 1.0
    blurred = gaussian_filter1d(rows, bank.sigma, axis=1, mode="reflect", truncate=4)
    expected = blurred / blurred.max(axis=1, keepdims=True)
    np.testing.assert_allclose(bank.masks, expected, atol=1e-6)


def test_long_sequences_are_occluded_by_what_needs_no_blur(rng):
    x = rng.random((2, 5000, 1), dtype=np.float32)
    found = perturbation_map(lambda v: v[:, :3, 0], x, baseline="zero")
    assert found.shape == (2, 5000)
    assert (found.argmax(axis=1) < 200).all()
    with pytest.raises(ValueError, match="Use the 'mean' or 'zero' baseline"):
        perturbation_map(lambda v: v[:, :3, 0], x)


def test_images_interpolate_bilinearly():
    bank = make_mask_bank((8, 12, 1), (4, 3))
    coefficients = np.random.default_rng(0).random((2, 4, 3)).astype("float32")
    expected = tf.image.resize(coefficients[..., None], (8, 12))[..., 0]
    got = interpolate(bank, coefficients.reshape(2, 12))
    np.testing.assert_allclose(got, expected, atol=1e-6)
    with pytest.raises(ValueError, match=r"expected \(B, 12\)"):
        interpolate(bank, tf.ones((1, 2)))


def test_grouped_features_are_contiguous_and_balanced():
    sizes = make_mask_bank((100,), 3).masks.sum(1)
    assert set(sizes) == {11.0, 12.0}


def test_config_and_pickle_make_an_equal_bank():
    for shape, grid, *_ in BANKS:
        bank = make_mask_bank(shape, grid)
        for other in (MaskBank.from_config(bank.get_config()), pickle.loads(pickle.dumps(bank))):
            assert other == bank
            assert hash(other) == hash(bank)
            np.testing.assert_array_equal(other.masks, bank.masks)
    assert len(pickle.dumps(make_mask_bank((200, 200, 3)))) < 1000
    assert make_mask_bank((4,)) != make_mask_bank((5,))
    assert make_mask_bank((4,)) != 4


def test_grids_may_be_numpy_integers():
    for grid in (np.int64(4), np.array([4, 4]), (4, np.int32(4))):
        bank = make_mask_bank((8, 8, 1), grid)
        assert bank == make_mask_bank((8, 8, 1), 4)
        assert type(bank.get_config()["grid"][0]) is int


def test_layout_can_be_named():
    assert resolve_layout((28, 28)) == "sequence"
    bank = make_mask_bank((28, 28), layout="image")
    assert bank.map_shape == (28, 28)
    assert make_mask_bank((50,), 3, layout="sequence").size == 9


def test_expand_map():
    x = tf.ones((2, 4, 4, 3))
    assert expand_map(tf.ones((2, 4, 4)), x).shape == (2, 4, 4, 1)
    assert expand_map(tf.ones((2, 4)), tf.ones((2, 4))).shape == (2, 4)
    with pytest.raises(ValueError, match="one channel axis more"):
        expand_map(tf.ones((2, 4)), x)


def test_bad_shapes_grids_and_widths():
    for arguments, settings, message in (
        (((None, 3),), {}, "fixed positive lengths"),
        (((2, 2, 2, 2),), {}, "reshape the data"),
        (((8,),), {"layout": "image"}, "Name the layout"),
        (((4, 4, 1), 5), {}, "at most one cell per pixel"),
        (((4, 4, 1), 0), {}, "positive integer"),
        (((4, 4, 1), 2.0), {}, "positive integer"),
        (((4, 4, 1), True), {}, "positive integer"),
        (((4, 4, 1), (1, 2, 3)), {}, "positive integer or a pair"),
        (((8, 8, 1),), {"sigma": -1.0}, "positive number of pixels"),
        (((5000, 1),), {"sigma": -1.0}, "positive number of pixels"),
    ):
        with pytest.raises(ValueError, match=message):
            make_mask_bank(*arguments, **settings)
