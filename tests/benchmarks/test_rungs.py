"""Every rung of the ladder makes a network for its images."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

from baselines.rungs import RUNGS, load_data
from networks import nets

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", RUNGS)
def test_takes_its_images(name):
    rung = RUNGS[name]
    shape = (64, 64, 3) if rung.recipe["source"] == "tiny_imagenet10" else (28, 28, 1)
    net, _ = nets.untrained(nets.RECIPES["plain"] | rung.recipe)
    assert net(np.zeros((2, *shape), np.float32)).shape == (2, 10)
    # What adversaries are given.
    assert rung.recipe.get("epsilon", nets.EPSILON) == rung.epsilon


def test_tiny_imagenet_needs_its_archive():
    with pytest.raises(
        ValueError, match=r"Got no archive .*'colour', expected --archive"
    ):
        load_data(RUNGS["colour"], None, None, quick=True)
