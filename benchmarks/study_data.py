"""The data of the study: Fashion-MNIST, Tiny ImageNet, traffic signs, clothes."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

import keras_jsigr as kj

# Images, and where the objects of the test images are, if that is known.
Loaded = tuple[kj.datasets.Dataset, np.ndarray | None]
# What `--archive` has to be.
ARCHIVES = {
    "tiny_imagenet10": "tiny-imagenet-200.zip",
    "gtsrb": "gtsrb.npz",
    "clothing": "clothing_128.zip",
}
# One image in so many of the training images is for choosing settings.
HELD_BACK = 10
# Frames of one sign, which follow each other in GTSRB.
TRACK = 30


def load_data(
    source: str, data_dir: str | None, archive: Path | None, quick: bool, validation: bool = False
) -> Loaded:
    """Read the images of a rung.

    Args:
        source: `"idx"` for Fashion-MNIST, `"decoy"` for the same with patches that tell
            the label, or a key of `ARCHIVES`.
        data_dir: The folder of Fashion-MNIST's IDX files, or `None` to look for it.
        archive: The file of another data set.
        quick: Whether the embedded sample of Fashion-MNIST will do.
        validation: Whether a tenth of the training images takes the place of the test
            images: settings are chosen on them.

    Returns:
        The images and the boxes.

    Raises:
        ValueError: If there is no archive where one is needed.
    """
    if source in ARCHIVES:
        if archive is None:
            raise ValueError(
                f"Got no archive for {source!r}, expected --archive {ARCHIVES[source]}."
            )
        readers = {
            "tiny_imagenet10": load_tiny_imagenet10,
            "gtsrb": load_gtsrb,
            "clothing": load_clothing,
        }
        loaded = readers[source](archive)
    else:
        kind = "sample" if quick else "idx"
        data = kj.datasets.load("fashion_mnist", source=kind, data_dir=data_dir, verbose=False)
        loaded = with_decoys(data) if source == "decoy" else data, None
    return _validation(loaded, TRACK if source == "gtsrb" else 1) if validation else loaded


# The side of the patch in the upper left corner.
DECOY = 4


def with_decoys(data: kj.datasets.Dataset) -> kj.datasets.Dataset:
    """Paint a patch into a corner whose grey is that of the label, in testing of any.

    A network that looks at it knows nothing of clothes: its accuracy in testing falls.
    """
    rng, classes = np.random.default_rng(0), len(data.class_names)
    painted = {}
    for name, labels in (
        ("x_train", data.y_train),
        ("x_test", rng.integers(0, classes, len(data.y_test))),
    ):
        images = getattr(data, name).copy()
        images[:, :DECOY, :DECOY] = (labels / (classes - 1.0))[:, None, None, None]
        painted[name] = images
    return replace(data, name="decoy", **painted)


def mixed(items: Any) -> Any:
    """Mix classes in an order that stays, so that the first images are a sample."""
    order = np.random.default_rng(0).permutation(len(items))
    return items[order] if isinstance(items, np.ndarray) else [items[i] for i in order]


def decoded(archive: zipfile.ZipFile, members: list[str]) -> np.ndarray:
    """Read JPEG images of one size, uint8 `(N, H, W, 3)`."""
    images = [tf.io.decode_jpeg(archive.read(name), channels=3).numpy() for name in members]
    return np.stack(images)


def _validation(loaded: Loaded, track: int) -> Loaded:
    """Hold back one example in ten, or one track of frames, of each class."""
    data = loaded[0]
    held = np.zeros(len(data.x_train), bool)
    for label in np.unique(data.y_train):
        members = np.flatnonzero(data.y_train == label)
        held[members[np.arange(len(members)) // track % HELD_BACK == 3]] = True
    order = mixed(np.flatnonzero(held))
    return replace(
        data,
        x_train=data.x_train[~held],
        y_train=data.y_train[~held],
        x_test=data.x_train[order],
        y_test=data.y_train[order],
    ), None


def load_gtsrb(path: Path) -> Loaded:
    """Read the German Traffic Sign Recognition Benchmark at 32 x 32.

    Args:
        path: An `.npz` file: `x_train` uint8 `(N, 32, 32, 3)`, `y_train` with 43
            classes, `box_train` float `(N, 4)` with `x1, y1, x2, y2` as shares of the
            sides, and the same of the official test split.

    Returns:
        The images and the boxes of the test images, in pixels.
    """
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    # The test images come in an order that says something of their size.
    order = mixed(np.arange(len(arrays["x_test"])))
    data = kj.datasets.Dataset(
        x_train=kj.datasets.to_unit_range(arrays["x_train"]),
        y_train=arrays["y_train"].astype("int64"),
        x_test=kj.datasets.to_unit_range(arrays["x_test"][order]),
        y_test=arrays["y_test"][order].astype("int64"),
        class_names=tuple(str(number) for number in range(43)),
        name="gtsrb",
        source=path.name,
    )
    return data, arrays["box_test"][order] * np.float32(arrays["x_test"].shape[1])


def load_clothing(path: Path) -> Loaded:
    """Read photographs of clothes, 128 x 128, in ten folders of classes.

    Args:
        path: A zip archive with `train/<class>/*`, `validation/...` and `test/...`;
            the validation images are trained on.

    Returns:
        The images; there are no boxes.
    """
    with zipfile.ZipFile(path) as archive:
        names = mixed(sorted(n for n in archive.namelist() if n.endswith((".jpg", ".jpeg"))))
        places = [name.split("/")[-3:-1] for name in names]
        images = decoded(archive, names)
    classes = sorted({label for _, label in places})
    labels = np.array([classes.index(label) for _, label in places])
    test = np.array([split == "test" for split, _ in places])
    return kj.datasets.Dataset(
        x_train=kj.datasets.to_unit_range(images[~test]),
        y_train=labels[~test],
        x_test=kj.datasets.to_unit_range(images[test]),
        y_test=labels[test],
        class_names=tuple(classes),
        name="clothing",
        source=path.name,
    ), None


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


def load_tiny_imagenet10(
    path: Path,
) -> tuple[kj.datasets.Dataset, np.ndarray]:
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
        names = mixed(sorted(files))
        splits = {}
        for split in ("train", "val"):
            chosen = [name for name in names if name.startswith(f"{split}/")]
            images = decoded(archive, [files[name] for name in chosen])
            labels = np.array([classes.index(name.split("/")[1]) for name in chosen])
            splits[split] = (chosen, images, labels)
    boxes = np.array([corners[name] for name in splits["val"][0]], np.float32)
    data = kj.datasets.Dataset(
        x_train=kj.datasets.to_unit_range(splits["train"][1]),
        y_train=splits["train"][2],
        x_test=kj.datasets.to_unit_range(splits["val"][1]),
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
