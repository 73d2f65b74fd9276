"""Both archives of Tiny ImageNet hold the same data."""

import json
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

from networks import tiny_imagenet10
from networks.tiny_imagenet10 import CLASSES


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
    (ten, ten_boxes), (whole, whole_boxes) = map(tiny_imagenet10.load, archives)
    assert ten.x_train.shape == (20, 8, 8, 3)
    assert sorted(ten.y_train) == sorted([*range(10)] * 2)
    assert sorted(ten.y_test) == [*range(10)]
    assert ten.class_names == whole.class_names == tuple(sorted(CLASSES))
    for part in ("x_train", "y_train", "x_test", "y_test"):
        np.testing.assert_array_equal(getattr(ten, part), getattr(whole, part))
    np.testing.assert_array_equal(ten_boxes, whole_boxes)
    assert (ten_boxes[:, 2:] > ten_boxes[:, :2]).all()
