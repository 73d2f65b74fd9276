"""What the grid shows of a model's decisions."""

import keras
import numpy as np
import pytest

import keras_jsigr as kj
from keras_jsigr.attacks import PGD
from keras_jsigr.callbacks.grid.measurement import Measurer
from keras_jsigr.callbacks.grid.probe import check_probe
from keras_jsigr.penalties import PenaltySettings


@pytest.mark.parametrize("harden", [False, True])
@pytest.mark.parametrize("head", ["softmax", "sigmoid"])
def test_probabilities_are_those_of_the_model(head, harden):
    flat, dense = keras.layers.Flatten(), keras.layers.Dense(3, head)
    model = keras.Sequential([keras.Input((6, 6)), flat, dense])
    x = np.random.default_rng(0).uniform(size=(3, 6, 6)).astype("float32")
    model = kj.harden(model, verbose=0) if harden else model
    attack = PGD(epsilon=0.1, steps=2)
    found = Measurer(model, check_probe(x), attack, "margin", PenaltySettings())()
    np.testing.assert_allclose(found.probabilities, model(x), rtol=1e-5)
    np.testing.assert_allclose(found.probabilities_adv, model(found.x_adv), rtol=1e-5)


@pytest.mark.parametrize("labelled", [True, False])
def test_maps_of_independent_classes_are_of_all_decisions(labelled):
    flat, dense = keras.layers.Flatten(), keras.layers.Dense(3, "sigmoid")
    model = keras.Sequential([keras.Input((6, 6, 1)), flat, dense])
    x = np.random.default_rng(0).uniform(size=(4, 6, 6, 1)).astype("float32")
    y = np.eye(3, dtype="float32")[[0, 2, 1, 0]]
    probe = check_probe(x, y) if labelled else check_probe(x)
    settings = PenaltySettings(grid=2)
    found = Measurer(model, probe, PGD(epsilon=0.1, steps=2), "log_prob", settings)()
    targets = y if labelled else (np.asarray(model(x)) > 0.5).astype("float32")
    maps = kj.gradient_map(model, x, targets, kind="sigmoid", layout="image")
    np.testing.assert_allclose(found.gradient, maps, rtol=1e-4, atol=1e-7)


def test_images_of_a_few_pixels_have_fewer_cells():
    flat, dense = keras.layers.Flatten(), keras.layers.Dense(3)
    model = keras.Sequential([keras.Input((3, 4, 1)), flat, dense])
    x = np.random.default_rng(0).uniform(size=(2, 3, 4, 1)).astype("float32")
    measure = Measurer(
        model, check_probe(x), PGD(epsilon=0.1, steps=2), "margin", PenaltySettings()
    )
    assert measure().perturbation.shape == (2, 3, 4)
