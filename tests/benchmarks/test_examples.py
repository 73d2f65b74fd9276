"""Transferred examples are made once, and are those of their sources."""

import sys
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest

import keras_jsigr as kj

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

from baselines import examples
from baselines.bank import Bank
from baselines.rungs import RUNGS
from networks.architectures import NETS


@pytest.fixture
def bank(tmp_path, monkeypatch):
    options = Namespace(
        cache=tmp_path,
        jobs=1,
        images=6,
        skip=0,
        quick=True,
        data_dir=None,
        archive=None,
    )
    made = Bank(RUNGS["reference"], options)
    nets = {name: NETS["reference"]("silu", i) for i, name in enumerate(["a", "b"])}
    monkeypatch.setattr(made, "net", lambda name, seed: nets[name])
    monkeypatch.setattr(made, "file_of", lambda name, _: tmp_path / f"{name}.keras")
    return made


@pytest.mark.slow
def test_they_are_those_of_every_source_and_of_both_ensembles(bank):
    found = examples.transfer_examples(bank, ["a", "b"], 0.1)
    assert list(found) == ["a", "b", "logits", "probabilities"]
    x, y = bank.test_images
    expected = kj.attacks.MIFGSM(epsilon=0.1, verbose=0)(bank.net("b", 0), x, y)
    np.testing.assert_array_equal(found["b"], expected)


@pytest.mark.slow
def test_they_are_made_once_for_each_radius_and_set_of_sources(bank, monkeypatch):
    made = examples.transfer_examples(bank, ["a", "b"], 0.1)
    attacked = []

    def see(*arguments):
        attacked.append(arguments[1:])
        return {"a": np.zeros(1, "float32")}

    monkeypatch.setattr(examples, "_attacked", see)
    again = examples.transfer_examples(bank, ["a", "b"], 0.1)
    assert attacked == []
    for name, x_adv in made.items():
        np.testing.assert_array_equal(again[name], x_adv)
    examples.transfer_examples(bank, ["a", "b"], 0.2)
    examples.transfer_examples(bank, ["a"], 0.1)
    bank.chosen["skip"] = 6
    examples.transfer_examples(bank, ["a"], 0.1)
    assert attacked == [(["a", "b"], 0.2), (["a"], 0.1), (["a"], 0.1)]
