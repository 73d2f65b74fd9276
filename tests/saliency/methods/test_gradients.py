"""SmoothGrad, VarGrad, gradient times input, integrated gradients by NumPy."""

import numpy as np
import pytest
import tensorflow as tf

from keras_jsigr.core.scores import class_score
from keras_jsigr.saliency import baseline, explain, explainer, gradient_map
from keras_jsigr.saliency.methods.integrated_gradients import quadrature

LOGIT = {"score": "logit", "reduce": False}
NOISY = ("smoothgrad", "vargrad")


def draws(count, shape, seed=0):
    """Return the noise of all samples, each by its own seed."""
    seeds = [
        tf.random.experimental.stateless_fold_in([0, seed], s, alg="philox")
        for s in range(count)
    ]
    return np.stack(
        [tf.random.stateless_normal(shape, s, alg="philox") for s in seeds]
    ).astype(float)


def test_gradient_is_gradient_map(conv_net, images, labels):
    for settings in ({}, {"score": "margin"}, {"reduce": False}):
        np.testing.assert_array_equal(
            explain(conv_net, images, labels, **settings),
            gradient_map(conv_net, images, labels, **settings),
        )
    np.testing.assert_array_equal(
        explain(conv_net, images), gradient_map(conv_net, images)
    )


def test_gradient_times_input(net, images, labels):
    got = explain(net, images, labels, method="gradient_x_input", **LOGIT)
    expected = images * net.gradient(images, labels)
    np.testing.assert_allclose(got, expected, atol=1e-5)
    got = explain(net, images, labels, method="gradient_x_input", score="logit")
    np.testing.assert_allclose(got, np.abs(expected).sum(-1), atol=1e-5)


def test_smoothgrad_and_vargrad_by_hand(net, images, labels):
    noise = 0.2 * 2.0 * draws(7, (8, 6, 2), seed=4)
    gradients = np.stack([net.gradient(images + n, labels) for n in noise])
    settings = {"noise": 0.2, "input_range": (-1, 1), "seed": 4, "samples": 7, **LOGIT}
    got = explain(net, images, labels, method="smoothgrad", **settings)
    np.testing.assert_allclose(got, gradients.mean(0), atol=1e-5)
    got = explain(net, images, labels, method="vargrad", **settings)
    expected = gradients.var(0, ddof=1)
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("method", [*NOISY, "integrated_gradients", "rise"])
def test_neither_batch_nor_chunk_nor_order_matter(conv_net, images, labels, method):
    settings = {"samples": 9} if method != "integrated_gradients" else {"steps": 9}
    whole = explain(conv_net, images, labels, method=method, **settings)
    assert whole.std() > 1e-6
    tolerance = {"rtol": 1e-4, "atol": 1e-5 * whole.max()}
    # Four draws at once for batches of two, nine for the last one alone.
    split = explain(
        conv_net,
        images[::-1],
        labels[::-1],
        method=method,
        batch_size=2,
        chunk=9,
        **settings,
    )
    np.testing.assert_allclose(split[::-1], whole, **tolerance)


def test_the_seed_decides(net, images):
    maps = [
        explain(net, images, method="smoothgrad", samples=3, seed=seed)
        for seed in (0, 0, 1)
    ]
    np.testing.assert_array_equal(maps[0], maps[1])
    assert np.abs(maps[0] - maps[2]).max() > 1e-4


def test_linear_nets_have_no_variance(rng, images, labels):
    weights = rng.normal(size=(96, 3)).astype("float32")
    linear = lambda x: tf.reshape(x, (-1, 96)) @ weights  # noqa: E731
    np.testing.assert_array_equal(
        explain(linear, images, labels, method="vargrad", score="logit", samples=5), 0.0
    )
    got = explain(linear, images, labels, method="smoothgrad", samples=5, **LOGIT)
    rows = weights.T[labels].reshape(images.shape)
    np.testing.assert_allclose(got, rows, atol=1e-5)


@pytest.mark.parametrize("rule", ["gauss_legendre", "midpoint", "trapezoid"])
def test_integrated_gradients_by_hand(net, images, labels, rule):
    points, weights = quadrature(6, rule)
    terms = [
        w * net.gradient(0.3 + t * (images - 0.3), labels)
        for t, w in zip(points, weights, strict=True)
    ]
    settings = {"steps": 6, "rule": rule, "baseline": 0.3, **LOGIT}
    got = explain(net, images, labels, method="integrated_gradients", **settings)
    np.testing.assert_allclose(got, (images - 0.3) * sum(terms), atol=1e-5)


@pytest.mark.parametrize("kind", ["zero", "blur", "mean", 0.5])
@pytest.mark.parametrize("score", ["log_prob", "margin", "logit"])
def test_completeness(conv_net, images, labels, kind, score):
    got = explain(
        conv_net,
        images,
        labels,
        method="integrated_gradients",
        baseline=kind,
        score=score,
        reduce=False,
    )
    named = isinstance(kind, str)
    low = baseline(images, kind) if named else np.full_like(images, kind)
    hot = tf.one_hot(labels, 3)
    rise = class_score(conv_net(images), hot, score) - class_score(
        conv_net(low), hot, score
    )
    np.testing.assert_allclose(got.sum((1, 2, 3)), rise, atol=1e-5)


@pytest.mark.parametrize("rule", ["gauss_legendre", "midpoint", "trapezoid"])
def test_quadratic_nets_are_complete_with_two_points(rng, rule):
    w = rng.normal(size=(3, 4, 4)).astype("float32")
    w += w.transpose(0, 2, 1)
    model = lambda x: tf.einsum("bi,cij,bj->bc", x, w, x)  # noqa: E731
    x, y = rng.normal(size=(6, 4)).astype("float32"), np.arange(6) % 3
    got = explain(
        model, x, y, method="integrated_gradients", steps=2, rule=rule, **LOGIT
    )
    np.testing.assert_allclose(got, x * np.einsum("bij,bj->bi", w[y], x), atol=1e-5)


def test_quadrature_is_exact_for_polynomials():
    for power in range(8):
        points, weights = quadrature(4, "gauss_legendre")
        assert weights @ points**power == pytest.approx(1 / (power + 1))
    for rule in ("midpoint", "trapezoid"):
        points, weights = quadrature(4, rule)
        assert weights @ points == pytest.approx(0.5)
        assert weights @ points**2 != pytest.approx(1 / 3)


@pytest.mark.parametrize("method", [*NOISY, "integrated_gradients", "gradient_x_input"])
@pytest.mark.parametrize("shape", [(12,), (6, 3)])
def test_features_and_sequences(make_net, rng, method, shape):
    x = rng.random((4, *shape)).astype("float32")
    run = explainer(make_net(shape), x[:1], method=method, reduce=method != "vargrad")
    expected = shape if method == "vargrad" else shape[:1]
    assert run(x).shape == (4, *expected)
    assert run(x[:0]).shape == (0, *expected)


@pytest.mark.parametrize(
    ("method", "settings", "message"),
    [
        (
            "smoothgrad",
            {"samples": 0},
            "`samples` is out of range: got 0, expected an integer",
        ),
        ("vargrad", {"samples": 1}, "expected an integer >= 2"),
        ("smoothgrad", {"noise": -0.1}, "`noise` is out of range: got -0.1"),
        ("smoothgrad", {"input_range": (1, 0)}, "width of input_range"),
        ("smoothgrad", {"chunk": 0}, "`chunk` is out of range: got 0"),
        ("integrated_gradients", {"rule": "simpson"}, "Unknown `rule`: got 'simpson'"),
        ("integrated_gradients", {"steps": 1}, "`steps` is out of range: got 1"),
        ("integrated_gradients", {"baseline": "noise"}, "Unknown `baseline`"),
        (
            "integrated_gradients",
            {"baseline": np.nan},
            "`baseline` is out of range: got nan",
        ),
        ("gradient", {"score": "prob"}, "Unknown `score`: got 'prob'"),
        ("gradient", {"kind": "linear"}, "Unknown `kind`: got 'linear'"),
        ("gradient", {"reduce": "mean"}, "Unknown `reduce`"),
    ],
)
def test_refused(net, images, method, settings, message):
    with pytest.raises(ValueError, match=message):
        explain(net, images, method=method, **settings)


def test_fractional_seed_is_refused(net, images):
    with pytest.raises(TypeError, match=r"`seed` is not an integer: got 0\.5"):
        explain(net, images, method="smoothgrad", seed=0.5)
