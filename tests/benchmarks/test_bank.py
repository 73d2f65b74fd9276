"""Which networks the studies train, and in which order."""

import sys
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest

import keras_jsigr as kj

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

from baselines import bank as banks
from baselines.bank import Bank
from baselines.methods import at_radius
from baselines.rungs import RUNGS


def bank_of(folder, rung="reference", **options):
    common = {"cache": folder, "jobs": 2, "images": 8, "skip": 0, "quick": False}
    return Bank(RUNGS[rung], Namespace(**{**common, **options}))


def weights(recipe):
    settings = recipe["settings"]
    return settings["jacobian_weight"], settings["selective_weight"]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, (0.0025, 0.0075)),
        ({"jacobian_weight": 0.1, "norm": "squared"}, (0.025, 0.00375)),
        ({"jacobian_weight": 0.1, "form": "separate"}, (0.025, 0.0075)),
    ],
)
def test_weights_follow_the_radius(settings, expected):
    recipe = {"defence": "harden", "settings": settings}
    assert weights(at_radius(recipe, 0.05)) == pytest.approx(expected)
    assert at_radius(recipe, 0.1) == recipe


def test_other_defences_have_no_weights():
    recipe = {"defence": "TRADES-10", "beta": 6.0}
    assert at_radius(recipe, 0.05) == recipe


def test_a_preset_is_spelt_out():
    recipe = {"defence": "harden", "preset": "fast", "settings": {"noise": 0.01}}
    found = at_radius(recipe, 0.05)
    assert found["settings"] == kj.preset("fast", epsilon=0.05) | {"noise": 0.01}
    assert "preset" not in found
    times = at_radius(recipe | {"times": 2.0}, 0.05)
    assert weights(times) == pytest.approx([2 * w for w in weights(found)])
    assert times.keys() == found.keys()
    wider = at_radius(recipe | {"wider": 1.5, "settings": {}}, 0.05)
    assert wider["settings"] == kj.preset("fast", epsilon=0.05 * 1.5)
    assert wider.keys() == found.keys()


def test_files_are_named_after_what_networks_are(tmp_path):
    bank, smaller = bank_of(tmp_path), bank_of(tmp_path, quick=True)
    names = {
        each.file_of(name, seed).name
        for each in (bank, smaller)
        for name in ("plain", "j_sigr")
        for seed in (0, 1)
    }
    assert len(names) == 8
    assert bank.stems_of([("plain", 0)]) == [bank.file_of("plain", 0).stem]


def test_examples_of_transfer_may_be_made_on_another_rung(tmp_path):
    bank, madry = bank_of(tmp_path), bank_of(tmp_path, rung="madry")
    assert bank.surrogates is bank
    assert madry.surrogates.stems_of([("plain", 1000)]) == bank.stems_of(
        [("plain", 1000)]
    )


def test_a_longer_method_has_more_epochs(tmp_path):
    bank = bank_of(tmp_path)
    assert bank.recipe_of("plain", 0)["epochs"] == 15
    assert bank.recipe_of("j_sigr_long", 0)["epochs"] == 40


@pytest.fixture
def stages(monkeypatch):
    found = []
    monkeypatch.setattr(banks, "side_by_side", lambda parts, _: found.append(parts))
    return found


def test_teachers_come_first_and_nothing_twice(tmp_path, stages):
    bank = bank_of(tmp_path, rung="swish")
    bank.fill([("j_sigr_hard", 3), ("j_sigr_hard", 3), ("plain", 0)])
    own = ["--rung", "swish", "--train"]
    assert stages == [
        [[*own, "plain", "3"], [*own, "plain", "0"]],
        [[*own, "j_sigr_hard", "3"]],
    ]


def test_long_trainings_start_first(tmp_path, stages):
    names = ["plain", "fgsm_rs", "pgd_7", "trades_10", "j_sigr_fgsm_rs", "jacobian"]
    bank_of(tmp_path).fill([(name, 0) for name in [*names, "j_sigr_long"]])
    order = [[part[-2] for part in stage] for stage in stages]
    assert order[0][:2] == ["trades_10", "pgd_7"]
    assert order[0][-1] == "plain"
    assert order[1] == ["j_sigr_long", "j_sigr_fgsm_rs"]


def test_what_is_trained_stays(tmp_path, stages):
    bank = bank_of(tmp_path)
    bank.file_of("plain", 0).write_text("trained before")
    bank.fill([("plain", 0), ("plain", 1)])
    assert stages == [[["--rung", "reference", "--train", "plain", "1"]], []]


def test_slow_networks_are_attacked_on_fewer_images(tmp_path):
    assert bank_of(tmp_path, images=1000).chosen == {"images": 1000}
    assert bank_of(tmp_path, "madry", images=1000).chosen == {"images": 500}
    assert bank_of(tmp_path, "madry", images=32).chosen == {"images": 32}


def test_other_images_may_be_attacked(tmp_path):
    options = {"quick": True, "data_dir": None, "archive": None}
    first, later = (bank_of(tmp_path, skip=skip, **options) for skip in (0, 8))
    assert later.chosen == {"images": 8, "skip": 8}
    for start, bank in ((0, first), (8, later)):
        x, y = bank.test_images
        np.testing.assert_array_equal(x, bank.data.x_test[start : start + 8])
        np.testing.assert_array_equal(y, bank.data.y_test[start : start + 8])
