"""Transferred examples are made once, and are those of their sources."""

import json
import subprocess
import sys
import zipfile
from argparse import Namespace

import numpy as np
import pytest
import study_networks
import tensorflow as tf
from networks import NETS
from study_networks import (
    CLASSES,
    RUNGS,
    Bank,
    load_tiny_imagenet10,
    side_by_side,
    transfer_examples,
)

import keras_jsigr as kj


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
    found = transfer_examples(bank, ["a", "b"], 0.1)
    assert list(found) == ["a", "b", "logits", "probabilities"]
    x, y = bank.test_images
    expected = kj.attacks.MIFGSM(epsilon=0.1, verbose=0)(bank.net("b", 0), x, y)
    np.testing.assert_array_equal(found["b"], expected)


@pytest.mark.slow
def test_they_are_made_once_for_each_radius_and_set_of_sources(bank, monkeypatch):
    made = transfer_examples(bank, ["a", "b"], 0.1)
    attacked = []

    def see(*arguments):
        attacked.append(arguments[1:])
        return {"a": np.zeros(1, "float32")}

    monkeypatch.setattr(study_networks, "_attacked", see)
    again = transfer_examples(bank, ["a", "b"], 0.1)
    assert attacked == []
    for name, x_adv in made.items():
        np.testing.assert_array_equal(again[name], x_adv)
    transfer_examples(bank, ["a", "b"], 0.2)
    transfer_examples(bank, ["a"], 0.1)
    bank.chosen["skip"] = 6
    transfer_examples(bank, ["a"], 0.1)
    assert attacked == [(["a", "b"], 0.2), (["a"], 0.1), (["a"], 0.1)]


PROGRAM = """
import os, pathlib, sys
*options, method, seed = sys.argv[1:]
assert options == ["--keep", "this", "--train"]
if method == "bad":
    raise SystemExit(3)
threads = os.environ["TF_NUM_INTRAOP_THREADS"]
pathlib.Path(__file__).with_name(f"{method} {seed}").write_text(threads)
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    monkeypatch.setattr(sys, "argv", [str(program), "--keep", "this"])
    return tmp_path


def test_every_part_runs_once_on_one_core(folder):
    tasks = [("j sigr", "0"), ("plain", "1"), ("plain", "2")]
    side_by_side((["--train", *task] for task in tasks), jobs=2)
    made = {path.name: path.read_text() for path in folder.glob("* [0-9]")}
    assert made == {f"{method} {seed}": "1" for method, seed in tasks}


def test_a_failure_is_not_lost_and_stops_the_rest(folder):
    tasks = [("bad", "0"), ("plain", "1"), ("plain", "2")]
    with pytest.raises(subprocess.CalledProcessError, match="exit status 3"):
        side_by_side((["--train", *task] for task in tasks), jobs=1)
    # The second may have started before the first one's failure was seen.
    assert not (folder / "plain 2").exists()


@pytest.fixture
def archives(tmp_path):
    """The ten classes alone, and among others as they are given out."""
    rng = np.random.default_rng(0)
    ten, whole = tmp_path / "ten.zip", tmp_path / "all.zip"
    boxes, val = {}, []
    with zipfile.ZipFile(ten, "w") as few, zipfile.ZipFile(whole, "w") as many:
        for number, (name, wordnet) in enumerate([*CLASSES.items(), ("cat", "n02")]):
            lines = []
            for split, count in (("train", 2), ("val", 1)):
                for i in range(count):
                    image = rng.integers(0, 256, (8, 8, 3)).astype("uint8")
                    jpeg = tf.io.encode_jpeg(image).numpy()
                    at = sorted(rng.integers(0, 64, 2).tolist()) * 2
                    if split == "train":
                        file = f"{wordnet}_{i}.JPEG"
                        lines.append("\t".join(map(str, [file, *at])))
                        folder = f"train/{wordnet}/images"
                    else:
                        file = f"val_{7 * number}.JPEG"
                        val.append("\t".join(map(str, [file, wordnet, *at])))
                        folder = "val/images"
                    many.writestr(f"tiny-imagenet-200/{folder}/{file}", jpeg)
                    if name in CLASSES:
                        few.writestr(f"{split}/{name}/{file}", jpeg)
                        boxes[f"{split}/{name}/{file}"] = at
            text = "\n".join(lines) + "\n"
            path = f"tiny-imagenet-200/train/{wordnet}/{wordnet}_boxes.txt"
            many.writestr(path, text)
        many.writestr("tiny-imagenet-200/val/val_annotations.txt", "\n".join(val))
        few.writestr("boxes.json", json.dumps(boxes))
    return ten, whole


def test_both_archives_hold_the_same(archives):
    (ten, ten_boxes), (whole, whole_boxes) = map(load_tiny_imagenet10, archives)
    assert ten.x_train.shape == (20, 8, 8, 3)
    assert sorted(ten.y_train) == sorted([*range(10)] * 2)
    assert sorted(ten.y_test) == [*range(10)]
    assert ten.class_names == whole.class_names == tuple(sorted(CLASSES))
    for part in ("x_train", "y_train", "x_test", "y_test"):
        np.testing.assert_array_equal(getattr(ten, part), getattr(whole, part))
    np.testing.assert_array_equal(ten_boxes, whole_boxes)
    assert (ten_boxes[:, 2:] > ten_boxes[:, :2]).all()
