"""Regions from maps, and attacks that keep to them."""

import numpy as np
import pytest
import tensorflow as tf

from keras_jsigr.attacks import FGSM, PGD
from keras_jsigr.attacks.calls.inputs import check_region
from keras_jsigr.attacks.regions.regions import salient_region
from keras_jsigr.attacks.transfer.transfer_presets import VMIFGSM
from keras_jsigr.saliency import gradient_map, perturbation_map

RNG = np.random.default_rng(15)
W = RNG.normal(size=(6, 2)).astype("float32")
X = RNG.uniform(0.3, 0.7, (9, 6)).astype("float32")
Y = np.arange(9) % 2


def linear(x):
    return tf.linalg.matmul(x, tf.constant(W, x.dtype))


@pytest.mark.parametrize("share", [0.001, 0.25, 0.5, 1])
@pytest.mark.parametrize("shape", [(4, 6, 5), (3, 8)])
def test_most_salient_share(shape, share):
    maps = RNG.normal(size=shape)
    region = salient_region(maps, share)
    assert region.shape == shape
    assert region.dtype == "float32"
    for one, values in zip(region, maps, strict=True):
        count = max(1, round(share * values.size))
        assert one.sum() == count
        assert values[one == 1].min() >= np.sort(values.ravel())[-count]
    others = salient_region(maps, share, salient=False)
    np.testing.assert_array_equal(region + others, np.ones(shape))


def test_ties_go_by_order():
    maps = np.array([[[1, 1], [2, 1]]])
    np.testing.assert_array_equal(salient_region(maps), [[[1, 0], [1, 0]]])
    flat = np.zeros((2, 4, 4))
    np.testing.assert_array_equal(salient_region(flat)[:, :2], np.ones((2, 2, 4)))


def test_kinds_and_order_of_magnitude():
    maps = RNG.uniform(size=(3, 4, 4)).astype("float32")
    tensor = salient_region(tf.constant(maps))
    assert tf.is_tensor(tensor)
    np.testing.assert_array_equal(tensor, salient_region(maps))
    np.testing.assert_array_equal(tensor, salient_region(1e-30 * maps))


@pytest.mark.parametrize(
    ("maps", "settings", "error", "message"),
    [
        (np.zeros((2, 3)), {"share": 0}, ValueError, r"expected a share in \(0, 1\]"),
        (np.zeros((2, 3)), {"share": 50}, ValueError, "Divide percentages"),
        (np.zeros((2, 3)), {"share": None}, TypeError, "`share`"),
        (np.zeros((2, 3)), {"salient": 1}, ValueError, "`salient`"),
        (np.zeros(3), {}, ValueError, r"maps\[None\]"),
        (np.zeros((0, 3)), {}, ValueError, "one map per example"),
        (np.full((1, 3), np.nan), {}, ValueError, "NaN or infinity"),
        (np.array([["a"]]), {}, TypeError, "hold no numbers"),
    ],
)
def test_refused(maps, settings, error, message):
    with pytest.raises(error, match=message):
        salient_region(maps, **settings)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("method", [FGSM, PGD, VMIFGSM])
def test_optimum_inside_and_nothing_outside(method, norm):
    region = salient_region(RNG.uniform(size=(9, 6)), 0.5)
    # Along the sphere PGD closes in on the optimum by a factor of two per step.
    settings = {"step_size": 0.2, "steps": 40} if method is PGD else {}
    attack = method(epsilon=0.1, norm=norm, **(settings if norm == "l2" else {}))
    x_adv = attack(linear, X, Y, region=region)
    np.testing.assert_array_equal(x_adv[region == 0], X[region == 0])
    w = np.stack([W[:, 1 - y] - W[:, y] for y in Y]) * region
    length = 1.0 if norm == "linf" else np.linalg.norm(w, axis=1, keepdims=True)
    best = X + 0.1 * (np.sign(w) if norm == "linf" else w / length)
    np.testing.assert_allclose(x_adv, best, atol=1e-5)


@pytest.mark.parametrize("explain", [gradient_map, perturbation_map])
def test_both_sides_of_a_map(cnn, explain):
    x = RNG.uniform(size=(6, 8, 8, 1)).astype("float32")
    maps, attack = explain(cnn, x), FGSM(epsilon=0.3)
    sides = [salient_region(maps, 0.3, salient=side) for side in (True, False)]
    results = [attack(cnn, x, region=region) for region in sides]
    for region, x_adv in zip(sides, results, strict=True):
        changed = (x_adv != x)[..., 0]
        assert not changed[region == 0].any()
        assert changed.any()


def test_a_region_without_channels_is_one_whatever_else_it_fits():
    """One example as long as it is wide: steps of a sequence, not its features."""
    steps = np.array([[0, 0, 1, 0, 0, 0]])
    np.testing.assert_array_equal(
        check_region(steps, (1, 6, 6))[0], np.repeat(steps.T, 6, axis=1)
    )
    mask = np.eye(6)[None]
    np.testing.assert_array_equal(check_region(mask, (1, 6, 6)), mask)
    np.testing.assert_array_equal(check_region(np.eye(3), (3, 3, 3))[1, 1], [1, 1, 1])
