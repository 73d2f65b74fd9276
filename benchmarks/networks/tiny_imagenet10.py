"""Ten classes of Tiny ImageNet with boxes of their objects, from a local archive."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tensorflow as tf

import keras_jsigr as kj

CLASSES = {
    "banana": "n07753592",
    "bullet_train": "n02917067",
    "espresso": "n07920052",
    "golden_retriever": "n02099601",
    "goldfish": "n01443537",
    "mushroom": "n07734744",
    "red_panda": "n02509815",
    "school_bus": "n04146614",
    "scorpion": "n01770393",
    "umbrella": "n04507155",
}
# The folder in the archive of all 200 classes, tiny-imagenet-200.zip.
_ALL = "tiny-imagenet-200"


def load(path: Path) -> tuple[kj.datasets.Dataset, np.ndarray]:
    """Read images, labels and boxes.

    Args:
        path: `tiny-imagenet-200.zip` as Stanford's course CS231n gives it out, or a zip
            archive of the ten classes alone: `train/<class>/*.JPEG`,
            `val/<class>/*.JPEG` and `boxes.json`, which maps each file to its corners
            `[x0, y0, x1, y1]`, the pixels of both corners inside.

    Returns:
        The data, `val` as its test split, and the boxes of the test images, float32
        `(M, 4)`, as `keras_jsigr.saliency.metrics` takes them: the last corner outside.
    """
    classes = list(CLASSES)
    with zipfile.ZipFile(path) as archive:
        whole = f"{_ALL}/val/val_annotations.txt" in archive.namelist()
        files, corners = (_of_all if whole else _of_ten)(archive)
        names = sorted(files)
        # Classes mixed, in an order that stays: so the first images are a sample.
        names = [names[i] for i in np.random.default_rng(0).permutation(len(names))]
        splits = {}
        for split in ("train", "val"):
            chosen = [name for name in names if name.startswith(f"{split}/")]
            images = [
                tf.io.decode_jpeg(archive.read(files[name]), channels=3).numpy()
                for name in chosen
            ]
            labels = np.array([classes.index(name.split("/")[1]) for name in chosen])
            splits[split] = (chosen, np.stack(images), labels)
    boxes = np.array([corners[name] for name in splits["val"][0]], np.float32)
    data = kj.datasets.Dataset(
        x_train=kj.datasets.dataset.to_unit_range(splits["train"][1]),
        y_train=splits["train"][2],
        x_test=kj.datasets.dataset.to_unit_range(splits["val"][1]),
        y_test=splits["val"][2],
        class_names=tuple(classes),
        name="tiny_imagenet10",
        source=path.name,
    )
    return data, boxes + np.array([0, 0, 1, 1], np.float32)


# Members of the archive and corners, by `split/class/file`.
_Files, _Corners = dict[str, str], dict[str, list[int]]


def _of_ten(archive: zipfile.ZipFile) -> tuple[_Files, _Corners]:
    files = {name: name for name in archive.namelist() if name.endswith(".JPEG")}
    return files, json.loads(archive.read("boxes.json"))


def _of_all(archive: zipfile.ZipFile) -> tuple[_Files, _Corners]:
    files, corners = {}, {}
    for name, member, *corner in _members(archive):
        files[name] = member
        corners[name] = [int(side) for side in corner]
    return files, corners


def _members(archive: zipfile.ZipFile) -> Iterator[list[str]]:
    """Yield `split/class/file`, the member of the archive and the corners."""
    for name, wordnet in CLASSES.items():
        folder = f"{_ALL}/train/{wordnet}"
        for file, *corner in _rows(archive, f"{folder}/{wordnet}_boxes.txt"):
            yield [f"train/{name}/{file}", f"{folder}/images/{file}", *corner]
    names = {wordnet: name for name, wordnet in CLASSES.items()}
    for file, wordnet, *corner in _rows(archive, f"{_ALL}/val/val_annotations.txt"):
        if wordnet in names:
            member = f"{_ALL}/val/images/{file}"
            yield [f"val/{names[wordnet]}/{file}", member, *corner]


def _rows(archive: zipfile.ZipFile, name: str) -> list[list[str]]:
    return [line.split() for line in archive.read(name).decode().splitlines() if line]
