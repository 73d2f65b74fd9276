"""The tricks of the transfer family, each against NumPy, SciPy or a closed form."""

import numpy as np
import pytest
import tensorflow as tf
from scipy import ndimage, stats

from keras_jsigr.attacks.objectives.loss_slope import loss_slope
from keras_jsigr.attacks.objectives.losses import ascent_loss, attack_loss
from keras_jsigr.attacks.regions.top_share import top_share
from keras_jsigr.attacks.transfer.gradient_smoothing import (
    default_kernel,
    gaussian_kernel,
    smooth_gradient,
)
from keras_jsigr.attacks.transfer.input_diversity import input_diversity
from keras_jsigr.attacks.transfer.mean_over import mean_over
from keras_jsigr.attacks.transfer.scale_copies import scale_copy
from keras_jsigr.attacks.transfer.variance_tuning import gradient_variance

RNG = np.random.default_rng(11)
SEED = tf.constant([5, 6])


def frames(shape, seed=SEED, **settings):
    """Top, left, height and width of each image on its canvas, from white images."""
    white = tf.ones(shape, tf.float64)
    seen = input_diversity(white, seed, **settings).numpy()[..., 0]
    inside = seen > 0.5
    rows, columns = inside.any(axis=2), inside.any(axis=1)
    return np.stack(
        [rows.argmax(1), columns.argmax(1), rows.sum(1), columns.sum(1)], axis=1
    )


def resize(image, height, width):
    """Bilinear with half-pixel centres, one axis after the other."""
    for axis, size in enumerate((height, width)):
        side = image.shape[axis]
        places = (np.arange(size) + 0.5) * side / size - 0.5
        image = np.apply_along_axis(
            lambda line, places=places, side=side: np.interp(
                places, np.arange(side), line
            ),
            axis,
            image,
        )
    return image


@pytest.mark.parametrize("shape", [(6, 28, 28, 1), (6, 19, 40, 3), (6, 7, 5, 2)])
@pytest.mark.parametrize("scale", [0.9, 0.4])
def test_diversity_resizes_and_pads(shape, scale):
    x = RNG.uniform(size=shape)
    settings = {"probability": 1.0, "scale": scale}
    seen = input_diversity(tf.constant(x), SEED, fill=0.25, **settings).numpy()
    for image, result, frame in zip(x, seen, frames(shape, **settings), strict=True):
        top, left, height, width = frame
        small = resize(image, height, width)
        # Its coordinates are float32.
        theirs = tf.image.resize(image, (height, width))
        np.testing.assert_allclose(small, theirs, atol=1e-5)
        expected = np.full(shape[1:], 0.25)
        expected[top : top + height, left : left + width] = small
        np.testing.assert_allclose(result, expected, atol=1e-12)


def test_diversity_is_as_random_as_it_says():
    shape = (4000, 20, 30, 1)
    found = frames(shape, probability=0.3, scale=0.8)
    changed = found[:, 2] < 20
    assert abs(changed.mean() - 0.3) < 5 * np.sqrt(0.21 / 4000)
    assert (found[~changed] == [0, 0, 20, 30]).all()
    top, left, height, width = found[changed].T
    assert set(height) == {16, 17, 18, 19}
    assert set(width) == set(range(24, 30))
    # One draw for both: the aspect ratio is kept to a pixel.
    assert (np.abs(width / 30 - height / 20) < 1 / 20).all()
    for size in (16, 19):
        count = (height == size).sum()
        assert abs(count / changed.sum() - 0.25) < 5 * np.sqrt(0.19 / changed.sum())
        places = top[height == size]
        assert set(places) == set(range(20 - size + 1))
        half = (20 - size) / 2
        spread = np.sqrt(((20 - size + 1) ** 2 - 1) / 12 / count)
        assert abs(places.mean() - half) < 5 * spread
    assert (left + width <= 30).all()


def test_diversity_at_its_ends():
    x = tf.constant(RNG.uniform(size=(9, 28, 28, 3)).astype("float32"))
    off = input_diversity(x, SEED, probability=0.0)
    np.testing.assert_array_equal(off, x)
    on = input_diversity(x, SEED, probability=1.0)
    np.testing.assert_array_equal(on, input_diversity(x, SEED, probability=1.0))
    assert np.abs(on - input_diversity(x, SEED + 1, probability=1.0)).max() > 0.1
    for side in (1, 2, 3):
        x = tf.ones((50, side, side, 1))
        seen = input_diversity(x, SEED, probability=1.0).numpy()
        assert set(np.unique(seen)) == ({1.0} if side == 1 else {0.0, 1.0})


def test_diversity_is_linear_and_so_is_its_gradient():
    x = tf.constant(RNG.uniform(size=(4, 9, 9, 2)))
    weights = RNG.normal(size=(4, 9, 9, 2))

    def total(x):
        return tf.reduce_sum(weights * input_diversity(x, SEED, probability=0.7))

    with tf.GradientTape() as tape:
        tape.watch(x)
        value = total(x)
    gradient = tape.gradient(value, x)
    np.testing.assert_allclose(tf.reduce_sum(gradient * x), value, rtol=1e-9)
    direction = tf.constant(RNG.normal(size=x.shape))
    change = total(x + direction) - value
    np.testing.assert_allclose(tf.reduce_sum(gradient * direction), change, rtol=1e-8)


def test_diversity_in_a_graph_of_any_batch():
    step = tf.function(
        lambda x: input_diversity(x, SEED, probability=1.0),
        input_signature=[tf.TensorSpec((None, 8, 8, 1))],
    )
    x = tf.constant(RNG.uniform(size=(3, 8, 8, 1)).astype("float32"))
    eager = input_diversity(x, SEED, probability=1.0)
    np.testing.assert_allclose(step(x), eager, atol=1e-6)
    assert step(x[:0]).shape == (0, 8, 8, 1)


@pytest.mark.parametrize("length", [1, 3, 5, 15])
def test_kernel(length):
    expected = stats.norm.pdf(np.linspace(-3, 3, length) if length > 1 else [0.0])
    np.testing.assert_allclose(gaussian_kernel(length), expected / expected.sum())


@pytest.mark.parametrize(("length", "shape"), [(5, (9, 7, 3)), (15, (28, 28, 1))])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_smoothing(length, shape, dtype):
    gradient = RNG.normal(size=(2, *shape)).astype(dtype)
    kernel = np.outer(gaussian_kernel(length), gaussian_kernel(length))
    expected = ndimage.convolve(
        gradient.astype("float64"), kernel[None, :, :, None], mode="constant"
    )
    result = smooth_gradient(tf.constant(gradient), length)
    assert result.dtype == dtype
    np.testing.assert_allclose(result, expected, atol=1e-6)


def test_smoothing_beyond_the_image_and_not_at_all():
    gradient = tf.constant(RNG.normal(size=(2, 4, 6, 2)))
    np.testing.assert_allclose(smooth_gradient(gradient, 1), gradient, rtol=1e-12)
    kernel = np.outer(gaussian_kernel(15), gaussian_kernel(15))
    expected = ndimage.convolve(
        gradient.numpy(), kernel[None, :, :, None], mode="constant"
    )
    np.testing.assert_allclose(smooth_gradient(gradient, 15), expected, atol=1e-9)


def test_default_kernel():
    assert [default_kernel(n, 20) for n in (28, 199, 200, 299)] == [5, 5, 15, 15]


@pytest.mark.parametrize("shape", [(2, 5), (2, 5, 5), (2, 3, 4, 5, 1)])
def test_only_images(shape):
    x = tf.zeros(shape)
    with pytest.raises(ValueError, match=r"Input diversity needs images: got .*\(5"):
        input_diversity(tf.zeros((2, 5)), SEED)
    with pytest.raises(ValueError, match="needs images"):
        input_diversity(x, SEED)
    with pytest.raises(ValueError, match="needs images"):
        smooth_gradient(x, 5)


def test_scale_copies():
    x = RNG.normal(size=(3, 4))
    for number in range(5):
        copy = scale_copy(tf.constant(x), tf.constant(number))
        np.testing.assert_array_equal(copy, x / 2**number)


@pytest.mark.parametrize("count", [1, 2, 7])
def test_mean_over(count):
    terms = RNG.normal(size=(7, 3, 2))

    @tf.function
    def mean():
        all_terms = tf.constant(terms)
        return mean_over(count, lambda n: all_terms[n], all_terms[0])

    np.testing.assert_allclose(mean(), terms[:count].mean(0), atol=1e-12)


@pytest.mark.parametrize(("norm", "power"), [("linf", 0.0), ("l2", 0.5), ("l1", 1.0)])
def test_variance_of_a_square(norm, power):
    """With the gradient `x^2` it is `E (x + r)^2 - x^2 = E r^2 = side^2 / 3`."""
    x = tf.constant(RNG.uniform(-1, 1, (8, 50)))
    samples, side = 50, 3.0 / 50**power
    region = tf.constant(np.repeat([[1.0, 0.0]], 25, axis=1).reshape(1, 50))
    variance = gradient_variance(
        lambda x, seed: x**2,
        x,
        x**2,
        SEED,
        radius=3.0,
        samples=samples,
        norm=norm,
        region=tf.tile(region, (8, 1)),
    ).numpy()
    np.testing.assert_allclose(variance[:, 25:], 0.0, atol=1e-12)
    variance, points = variance[:, :25], x.numpy()[:, :25]
    # The variance of (x + r)^2 - x^2 = 2 x r + r^2 per draw.
    spread = np.sqrt(4 * points**2 * side**2 / 3 + 4 * side**4 / 45) / np.sqrt(samples)
    assert (np.abs(variance - side**2 / 3) < 5 * spread).all()
    assert np.abs(variance - side**2 / 3).max() > 0


def test_variance_draws_and_gives_seeds():
    seen, seeds = [], []

    def gradient_at(x, seed):
        seen.append(x.numpy())
        seeds.append(tuple(seed.numpy()))
        return x

    x = tf.zeros((2, 6))
    result = gradient_variance(gradient_at, x, x, SEED, radius=0.5, samples=4)
    np.testing.assert_allclose(result, np.mean(seen, axis=0), atol=1e-6)
    assert len(set(seeds)) == 4
    assert 0.4 < np.abs(seen).max() <= 0.5


@pytest.mark.parametrize("classes", [1, 5])
def test_slope_is_the_ratio_of_gradients(classes):
    logits = tf.constant(RNG.normal(0, 4, (40, classes)), tf.float32)
    y = RNG.integers(0, max(classes, 2), 40)
    targets = tf.one_hot(y, 5) if classes == 5 else tf.constant(y[:, None], tf.float32)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(logits)
        true = attack_loss(logits, targets)
        scaled = ascent_loss(logits, targets)
    slope = loss_slope(logits, targets).numpy()[:, None]
    expected = tape.gradient(true, logits)
    result = slope * tape.gradient(scaled, logits).numpy()
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-6)
    assert (loss_slope(logits, targets, "margin").numpy() == 1).all()


def test_slope_at_its_ends():
    sure, wrong = tf.constant([[1e4, 0.0, 0.0]]), tf.constant([[-1e4, 0.0, 0.0]])
    target = tf.constant([[1.0, 0.0, 0.0]])
    assert 0.0 < float(loss_slope(sure, target)[0]) < 1e-25
    assert float(loss_slope(wrong, target)[0]) == 1.0
    soft = tf.constant([[0.8, 0.1, 0.1]])
    assert float(loss_slope(sure, soft)[0]) == 1.0


@pytest.mark.parametrize("share", [0.01, 0.3, 0.5, 1.0])
def test_top_share(share):
    values = RNG.integers(0, 4, (6, 13)).astype("float32")
    order = np.argsort(-values, axis=1, kind="stable")
    expected = np.zeros(values.shape, bool)
    count = max(1, round(share * 13))
    np.put_along_axis(expected, order[:, :count], True, axis=1)
    np.testing.assert_array_equal(top_share(tf.constant(values), share), expected)
