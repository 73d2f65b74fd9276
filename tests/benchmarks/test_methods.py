"""Every file of settings of the study makes a model that trains."""

import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_jsigr as kj

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

from baselines.methods import ORDER, at_radius, load
from networks import nets
from networks.architectures import reference_net

pytestmark = pytest.mark.slow

METHODS = load()


def test_the_table_knows_every_file():
    assert tuple(METHODS) == ORDER


@pytest.mark.parametrize("name", ORDER)
def test_trains(name, tmp_path):
    data = kj.datasets.load("fashion_mnist", verbose=False)
    own = at_radius(METHODS[name].recipe, nets.EPSILON)
    recipe = nets.RECIPES["plain"] | own | {"epochs": 1, "images": 256}
    before = reference_net("silu", recipe["seed"]).get_weights()
    path = tmp_path / "net.keras"
    net = nets.train(recipe, data, path, teacher=lambda: reference_net("silu", 1))
    assert isinstance(net, keras.Sequential)
    assert net.output_shape == (None, 10)
    moved = [
        np.abs(a - b).max() for a, b in zip(before, net.get_weights(), strict=True)
    ]
    assert min(moved) > 0
    assert all(np.isfinite(w).all() for w in net.get_weights())
