"""Equality with Xplique, tf-keras-vis and PAIR saliency at equal settings.

The peers are those of requirements/explainers.txt; without them the tests are skipped.
"""

import importlib.util
from dataclasses import replace

import keras
import numpy as np
import pytest
from explainers.agreement import DIFFERENT, TOLERANCE, as_ours, correlation, difference
from explainers.peers import LIBRARIES, MODULES, OURS, find
from explainers.settings import Settings

pytestmark = pytest.mark.slow

SETTINGS = Settings(samples=60, steps=6, patch=4, stride=2, masks=1500, grid=4, rows=30)


PAIRS = [
    (method, library)
    for library in MODULES
    for method in LIBRARIES[OURS].METHODS
    if method in LIBRARIES[library].METHODS
]


SAME = [pair for pair in PAIRS if pair not in DIFFERENT]


@pytest.fixture(scope="module")
def net():
    """Return a net whose features are as fine as the image: nothing to resize."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((12, 10, 1)),
            layers.Conv2D(4, 3, padding="same", activation="silu"),
            layers.Conv2D(6, 3, padding="same", activation="silu"),
            layers.Flatten(),
            layers.Dense(5),
        ]
    )


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(4)
    x = rng.uniform(size=(7, 12, 10, 1)).astype("float32")
    # tf-keras-vis and PAIR saliency take noise by the range of the image.
    x[:, 0, 0], x[:, -1, -1] = 0.0, 1.0
    return x, np.arange(7) % 5


@pytest.fixture(scope="module")
def maps(net, data):
    """Explain all images; every result is kept for the next peer."""
    kept = {}

    def run(method, library, settings=SETTINGS):
        if library != OURS and importlib.util.find_spec(MODULES[library]) is None:
            pytest.skip(f"{library} is not installed (requirements/explainers.txt)")
        key = (method, library, settings)
        if key not in kept:
            make, reason = find(library, method)
            assert make is not None, reason
            kept[key] = make(net, settings)(*data)
        return kept[key]

    return run


@pytest.mark.filterwarnings("ignore")
def test_what_is_compared():
    assert len(SAME) == 8
    assert set(DIFFERENT) < set(PAIRS)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("method", "library"), SAME)
def test_equal(maps, method, library):
    theirs = as_ours(method, library, maps(method, library), SETTINGS)
    assert difference(maps(method, OURS), theirs) < TOLERANCE


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("library", MODULES)
def test_grad_cam_before_resizing(maps, library):
    theirs, ours = maps("Grad-CAM", library), maps("Grad-CAM", OURS)
    if library == "PAIR saliency":
        ours = ours / ours.max(axis=(1, 2), keepdims=True)
    assert difference(ours, theirs) < TOLERANCE


@pytest.mark.filterwarnings("ignore")
def test_integrated_gradients_with_the_ends_in_full(net, data, maps):
    # PAIR: the mean over the points. The trapezoidal rule halves both ends and divides
    # by the number of stretches.
    steps, (x, y) = SETTINGS.steps, data
    gradient_x_input, _ = find(OURS, "gradient x input")
    at_ones = gradient_x_input(net, SETTINGS)
    tiny = np.float32(1e-6)
    at_zero = at_ones(tiny * x, y) / tiny
    ends = at_zero + maps("gradient x input", OURS)
    ours = maps("integrated gradients", OURS)
    expected = ((steps - 1) * ours + ends / 2) / steps
    theirs = maps("integrated gradients", "PAIR saliency")
    assert difference(ours, theirs) > 10 * TOLERANCE
    assert difference(expected, theirs) < TOLERANCE


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("library", MODULES)
def test_smoothgrad_but_for_the_draws(maps, library):
    keras.utils.set_random_seed(1)
    ours = maps("SmoothGrad", OURS)
    other = maps("SmoothGrad", OURS, replace(SETTINGS, seed=1))
    by_chance = 1.0 - correlation(ours, other)
    assert by_chance > 0.0
    assert 1.0 - correlation(ours, maps("SmoothGrad", library)) < 2.0 * by_chance


@pytest.mark.filterwarnings("ignore")
def test_rise_sees_the_same(maps):
    # Not the same masks: theirs are stretched by a cell, and offset batch by batch.
    keras.utils.set_random_seed(1)
    assert correlation(maps("RISE", OURS), maps("RISE", "Xplique")) > 0.9
