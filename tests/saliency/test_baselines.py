import numpy as np
import pytest
import tensorflow as tf
from scipy.ndimage import gaussian_filter, gaussian_filter1d

from keras_jsigr.saliency import baseline


@pytest.mark.parametrize("sigma", [0.6, 1.0, 2.5, 9.0])
def test_blur_equals_scipy(images, sigma):
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


def test_zero_is_the_low_end(images):
    np.testing.assert_array_equal(baseline(images, "zero", low=-1.0), -1.0)


@pytest.mark.parametrize("kind", ["blur", "mean", "zero"])
@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_modes_and_types_agree(images, kind, jit, dtype):
    x = tf.cast(images, dtype)
    spec = tf.TensorSpec((None, *images.shape[1:]), dtype)
    compiled = tf.function(
        lambda v: baseline(v, kind), input_signature=[spec], jit_compile=jit
    )
    got = compiled(x)
    assert got.dtype == dtype
    assert got.shape == x.shape
    wide = baseline(tf.cast(x, "float32"), kind)
    atol = {"float16": 1e-3, "bfloat16": 1e-2}.get(dtype, 1e-6)
    np.testing.assert_allclose(tf.cast(got, "float32"), wide, atol=atol)


def test_integers_become_float32():
    x = np.arange(16, dtype="uint8").reshape(1, 4, 4, 1)
    assert baseline(x).dtype == "float32"
    np.testing.assert_allclose(baseline(x, "mean"), 7.5)


def test_no_example_depends_on_the_batch(images):
    for kind in ("blur", "mean"):
        whole = baseline(images, kind)
        for i in range(3):
            one = baseline(images[i : i + 1], kind)
            np.testing.assert_allclose(whole[i : i + 1], one, atol=1e-6)


def test_unknown_kind_and_long_axis():
    with pytest.raises(ValueError, match="Unknown `baseline`: got 'noise'"):
        baseline(np.ones((1, 3)), "noise")
    with pytest.raises(ValueError, match="at most 2048"):
        baseline(np.ones((1, 3000, 1)))
