"""Controls of the selection: what each of them still knows of an image."""

import keras
import map_controls
import numpy as np
import pytest
from study_data import DECOY, with_decoys

import keras_jsigr as kj

RNG = np.random.default_rng(0)
X = np.zeros((12, 10, 10, 1), "float32")
Y = np.arange(12) % 3
for row in range(12):  # a bright square in a place of its own
    X[row, row % 4 * 2 : row % 4 * 2 + 3, row // 4 * 3 : row // 4 * 3 + 3] = 0.5 + row / 24


@pytest.fixture(scope="module")
def teacher():
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Flatten(), keras.layers.Dense(3)]
    return keras.Sequential([keras.Input((10, 10, 1)), *layers])


def maps(kind, teacher):
    return map_controls.controlled(kind, teacher, X, Y, seed=1).maps(X)


def test_shuffled_maps_are_those_of_others(teacher):
    true = maps("cached", teacher)
    np.testing.assert_array_equal(
        true, kj.PerturbationCache.build(teacher, X, Y, verbose=0).maps(X)
    )
    for kind in ("shuffled", "shuffled in class"):
        found = maps(kind, teacher)
        at = np.abs(found[:, None] - true[None]).max((2, 3)).argmin(1)
        assert sorted(at) == list(range(12))
        assert (at != np.arange(12)).any()
        if kind == "shuffled in class":
            np.testing.assert_array_equal(Y[at], Y)


def test_the_mean_map_is_of_no_image(teacher):
    found = maps("mean", teacher)
    np.testing.assert_array_equal(found, np.broadcast_to(found[:1], found.shape))
    true = maps("cached", teacher).mean(0)
    assert np.corrcoef(found[0].ravel(), true.ravel())[0, 1] > 0.99


def test_edges_are_where_the_square_is(teacher):
    for found, image in zip(maps("edges", teacher), X[..., 0], strict=True):
        rows, columns = np.nonzero(image)
        row, column = np.unravel_index(found.argmax(), found.shape)
        assert abs(row - rows.mean()) <= 3
        assert abs(column - columns.mean()) <= 3


def test_decoys_tell_the_label_in_training_only():
    data = kj.datasets.load("fashion_mnist", verbose=False)
    painted = with_decoys(data)
    corner = painted.x_train[:, :DECOY, :DECOY].reshape(len(data.x_train), -1)
    np.testing.assert_allclose(corner, np.repeat(data.y_train[:, None] / 9, 16, 1), atol=1e-6)
    np.testing.assert_array_equal(painted.x_test[:, DECOY:], data.x_test[:, DECOY:])
    told = np.rint(painted.x_test[:, 0, 0, 0] * 9)
    assert 0.05 < (told == data.y_test).mean() < 0.15
