"""Every file of settings of the study makes a model that trains."""

import re
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_jsigr as kj

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

from baselines import page
from baselines.methods import ORDER, at_radius, load
from baselines.rungs import RUNGS
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


def test_the_page_is_made_of_the_figures(tmp_path):
    of = {"suite": "standard", "images": 1000}
    cells = {
        "step/plain/0": {"ratio": 1.0},
        "robust/plain/0": {"clean": 91.0, "robust": 0.0, "suspect": {}, **of},
        "step/j_sigr/0": {"ratio": 2.04},
        "robust/j_sigr/0": {
            "clean": 86.0,
            "robust": 60.0,
            "suspect": {"rule": "why"},
            **of,
        },
        "robust/j_sigr/1": {"clean": 87.0, "robust": 62.0, "suspect": {}, **of},
        "pgd/j_sigr/1": {"pgd": 65.2},
        "maps/j_sigr/0": {"own": 0.4, "teacher": 0.3, "gini": 0.5},
    }
    page.write([(RUNGS["reference"], cells)], METHODS, tmp_path)
    text = (tmp_path / "study.md").read_text()
    row = next(
        line for line in text.splitlines() if line.startswith("| J-SIGR, default |")
    )
    figures = "| 86.5 (86.0 to 87.0) | 65.2 | 61.0 (60.0 to 62.0) |"
    assert f"| 2 | 15 | 2.0x {figures}" in row
    assert "| 0.400 | 0.300 | 0.500 |" in row
    assert "J-SIGR, default: `rule`: why" in text
    assert "Epsilon 0.1, 1,000 test images." in text
    for plot in ("study-reference-frontier", "study-reference-cost"):
        svg = (tmp_path / "images" / f"{plot}.svg").read_text()
        assert "2 J-SIGR, default" in re.sub(r"\s+", " ", svg)
        assert "plain: 0.0 at" in svg
    cells["step/j_sigr_long/0"] = {"ratio": 2.0}
    costs = {name: page.cost(cells, method) for name, method in METHODS.items()}
    known = {name: costs[name] for name in ("plain", "j_sigr", "j_sigr_long")}
    # Forty epochs for fifteen.
    assert known == pytest.approx({"plain": 1, "j_sigr": 2.04, "j_sigr_long": 5.334})
    assert costs["pgd_7"] is None
