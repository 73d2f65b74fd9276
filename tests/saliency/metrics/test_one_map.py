"""Gini index, alignment, pointing game and relevance mass of one map."""

import numpy as np
import pytest
import tensorflow as tf

from keras_jsigr.saliency import gradient_map
from keras_jsigr.saliency.metrics import (
    alignment,
    control_map,
    gini,
    pointing_game,
    relevance_mass,
)

BOX = np.array([[2, 1, 5, 3]])


@pytest.fixture
def planted():
    """The maximum and 3/4 of the mass lie in the box."""
    maps = np.zeros((1, 6, 7), "float32")
    maps[0, 1, 4], maps[0, 2, 2] = 2.0, 1.0
    maps[0, 3, 4] = 1.0
    return maps


@pytest.mark.parametrize("n", [1, 2, 50])
def test_gini_has_closed_forms(n):
    one_hot, ramp = np.eye(n)[:1], np.arange(1.0, n + 1)[None]
    np.testing.assert_allclose(gini(one_hot), [1 - 1 / n], atol=1e-6)
    np.testing.assert_allclose(gini(ramp), [(n - 1) / (3 * n)], atol=1e-6)
    np.testing.assert_allclose(gini(np.ones((1, n))), [0.0], atol=1e-6)


def test_gini_is_half_the_mean_difference_over_the_mean(rng):
    maps = rng.random((4, 5, 6), dtype=np.float32)
    flat = maps.reshape(4, -1)
    differences = np.abs(flat[:, :, None] - flat[:, None]).mean((1, 2))
    np.testing.assert_allclose(gini(maps), differences / 2 / flat.mean(1), atol=1e-6)
    for same in (-maps, 1e-30 * maps, 1e30 * maps, maps[:, ::-1]):
        np.testing.assert_allclose(gini(same), gini(maps), atol=1e-6)


def test_gini_of_zeros_is_zero():
    np.testing.assert_array_equal(gini(np.zeros((2, 3))), [0.0, 0.0])


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


def test_alignment_without_gradient_or_input_is_zero():
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


@pytest.mark.parametrize("metric", [pointing_game, relevance_mass])
def test_boxes_need_images_and_four_corners(metric, planted):
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


def test_examples_do_not_depend_on_each_other(rng):
    maps = rng.random((5, 6, 7), dtype=np.float32)
    boxes = np.array([[0, 0, 3, 3], [1, 1, 7, 6], [2, 2, 3, 3], [0, 0, 7, 6], BOX[0]])
    for metric in (pointing_game, relevance_mass):
        single = [metric(maps[i : i + 1], boxes[i : i + 1])[0] for i in range(5)]
        np.testing.assert_allclose(metric(maps, boxes), tf.stack(single), rtol=1e-6)
