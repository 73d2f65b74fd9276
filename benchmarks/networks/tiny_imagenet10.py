"""Ten classes of Tiny ImageNet with boxes of their objects, from a local archive."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import tensorflow as tf

import keras_jsigr as kj


def load(path: Path) -> tuple[kj.datasets.Dataset, np.ndarray]:
    """Read images, labels and boxes.

    Args:
        path: A zip archive of `train/<class>/*.JPEG`, `val/<class>/*.JPEG` and
            `boxes.json`, which maps each file to its corners `[x0, y0, x1, y1]`, the
            pixels of both corners inside.

    Returns:
        The data, `val` as its test split, and the boxes of the test images, float32
        `(M, 4)`, as `keras_jsigr.saliency.metrics` takes them: the last corner outside.
    """
    with zipfile.ZipFile(path) as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".JPEG"))
        # Classes mixed, in an order that stays: so the first images are a sample.
        names = [names[i] for i in np.random.default_rng(0).permutation(len(names))]
        classes = sorted({name.split("/")[1] for name in names})
        corners = json.loads(archive.read("boxes.json"))
        splits = {}
        for split in ("train", "val"):
            files = [name for name in names if name.startswith(f"{split}/")]
            images = [
                tf.io.decode_jpeg(archive.read(name), channels=3).numpy()
                for name in files
            ]
            labels = np.array([classes.index(name.split("/")[1]) for name in files])
            splits[split] = (files, np.stack(images), labels)
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
