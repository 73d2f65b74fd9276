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
from study_data import CLASSES, load_clothing, load_data, load_gtsrb, load_tiny_imagenet10
from study_networks import RUNGS, Bank, side_by_side, transfer_examples

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
        weights=None,
        validation=False,
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


def test_signs_are_held_back_by_tracks(tmp_path):
    """Frames of one sign are alike: none is trained on that settings are chosen on."""
    x = np.arange(2 * 11 * 30, dtype=np.uint16)  # two classes of eleven tracks
    images = np.zeros((len(x), 32, 32, 3), np.uint8)
    images[:, 0, 0, 0], images[:, 0, 0, 1] = x % 256, x // 256
    labels = np.repeat([0, 1], 330)
    boxes = np.tile(np.float32([0, 0, 0.5, 1]), (len(x), 1))
    arrays = {f"{name}_{split}": value for split in ("train", "test")
              for name, value in (("x", images), ("y", labels), ("box", boxes))}  # fmt: skip
    np.savez(tmp_path / "gtsrb.npz", **arrays)
    _, found = load_gtsrb(tmp_path / "gtsrb.npz")
    np.testing.assert_array_equal(found, np.tile(np.float32([0, 0, 16, 32]), (len(x), 1)))

    def tracks(images):
        number = np.rint(255 * images[:, 0, 0, 0]) + 256 * np.rint(255 * images[:, 0, 0, 1])
        return set((number // 30).astype(int))

    held = load_data("gtsrb", None, tmp_path / "gtsrb.npz", quick=False, validation=True)[0]
    assert tracks(held.x_test) == {3, 14}
    assert tracks(held.x_train) == set(range(22)) - {3, 14}
    assert len(held.x_test) == 60
    assert not set(held.y_test[:20]) - {0, 1}


def test_clothes_are_read_from_their_folders(tmp_path):
    path = tmp_path / "clothing_128.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for split, count in (("train", 3), ("validation", 1), ("test", 2)):
            for label, level in (("hat", 200), ("shoes", 50)):
                for number in range(count):
                    jpeg = tf.io.encode_jpeg(np.full((128, 128, 3), level, np.uint8)).numpy()
                    archive.writestr(f"{split}/{label}/{number}.jpg", jpeg)
    data, _ = load_clothing(path)
    assert (data.x_train.shape, data.x_test.shape) == ((8, 128, 128, 3), (4, 128, 128, 3))
    assert data.class_names == ("hat", "shoes")
    np.testing.assert_array_equal(data.x_test.mean((1, 2, 3)) > 0.5, data.y_test == 0)
