"""Xplique under our contract: equal to our methods where they coincide."""

import sys
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_jsigr as kj
from keras_jsigr.saliency import XpliqueMethod, explain, explainer

layers = keras.layers


@pytest.fixture(scope="module")
def _xplique():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("xplique.attributions")


@pytest.fixture
def images():
    return np.random.default_rng(3).random((5, 8, 8, 1), dtype=np.float32)


@pytest.fixture
def labels():
    return np.array([0, 2, 1, 1, 0])


@pytest.fixture
def net():
    keras.utils.set_random_seed(7)
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(4, 3, activation="silu"),
            layers.Flatten(),
            layers.Dense(3),
            layers.Softmax(),
        ]
    )


PAIRS = {
    "Saliency": ({}, "gradient", {}),
    "GradientInput": ({}, "gradient_x_input", {}),
    "IntegratedGradients": (
        {"steps": 8, "baseline_value": 0.2},
        "integrated_gradients",
        {"steps": 8, "rule": "trapezoid", "baseline": 0.2},
    ),
    "Occlusion": (
        {"patch_size": 2, "patch_stride": 2, "occlusion_value": 0.1},
        "occlusion",
        {"patch": 2, "baseline": 0.1},
    ),
}


@pytest.mark.usefixtures("_xplique")
@pytest.mark.parametrize("score", ["logit", "margin"])
@pytest.mark.parametrize("name", PAIRS)
def test_equals_our_own(net, images, labels, name, score):
    settings, method, ours = PAIRS[name]
    peer = XpliqueMethod(attribution=name, settings=settings, score=score)
    got = explain(net, images, labels, method=peer)
    signed = {} if method == "occlusion" else {"reduce": False}
    expected = explain(
        net, images, labels, method=method, score=score, **ours, **signed
    ).reshape(5, 8, 8)
    expected = np.abs(expected) if name == "Saliency" else expected
    assert got.shape == (5, 8, 8)
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-5)


@pytest.mark.usefixtures("_xplique")
def test_noisy_gradients_agree_within_their_noise(net, images, labels):
    tf.random.set_seed(0)
    samples = 400
    settings = {"nb_samples": samples, "noise": 0.15}
    ours = {"samples": samples, "score": "logit", "reduce": False}
    mean = explain(net, images, labels, method="smoothgrad", **ours)
    variance = explain(net, images, labels, method="vargrad", **ours)
    peer = XpliqueMethod(attribution="SmoothGrad", settings=settings)
    error = np.sqrt(2 * variance[..., 0] / samples)
    away = (explain(net, images, labels, method=peer) - mean[..., 0]) / error
    # 320 values: their root mean square is one, and none is far out.
    assert 0.7 < np.sqrt((away**2).mean()) < 1.3
    assert np.abs(away).max() < 5
    peer = XpliqueMethod(attribution="VarGrad", settings=settings)
    theirs = explain(net, images, labels, method=peer)
    ratio = theirs.mean() / variance.mean()
    assert abs(ratio - 1) < 5 * np.sqrt(2 / samples)


@pytest.mark.usefixtures("_xplique")
def test_grad_cam_agrees_before_the_resizing(images, labels):
    # Feature maps of the size of the image: nothing to resize.
    keras.utils.set_random_seed(7)
    net = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(4, 3, padding="same", activation="silu"),
            layers.Flatten(),
            layers.Dense(3, activation="softmax"),
        ]
    )
    got = explain(net, images, labels, method=XpliqueMethod(attribution="GradCAM"))
    expected = explain(net, images, labels, method="grad_cam", verbose=0)
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-5)


@pytest.mark.usefixtures("_xplique")
def test_contract(net, images):
    peer = XpliqueMethod(attribution="Lime", settings={"nb_samples": 30})
    run = explainer(net, images[:1], method=peer)
    assert run.method == peer
    maps = run(tf.constant(images))
    assert tf.is_tensor(maps)
    assert maps.shape == (5, 8, 8)
    occlusion = XpliqueMethod(
        attribution="Occlusion",
        settings={"patch_size": 2, "patch_stride": 2},
        score="margin",  # The same for logits as for the logarithms of probabilities.
    )
    own = explain(net, images, method=occlusion)
    hardened = kj.harden(net, probe=False, verbose=0)
    np.testing.assert_allclose(explain(hardened, images, method=occlusion), own)
    plain = lambda x: net(x)  # noqa: E731
    np.testing.assert_allclose(
        explain(plain, images, method=occlusion), own, rtol=1e-3, atol=1e-5
    )
    with pytest.raises(ValueError, match="Unknown `attribution`: got 'Limes'"):
        explain(net, images, method=XpliqueMethod(attribution="Limes"))


def test_missing_xplique(net, images, monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "xplique"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "xplique", None)
    with pytest.raises(ImportError, match="pip install"):
        explain(net, images, method=XpliqueMethod(attribution="Lime"))


def test_refused():
    with pytest.raises(ValueError, match="Unknown `score`: got 'prob'"):
        XpliqueMethod(attribution="Lime", score="prob")
