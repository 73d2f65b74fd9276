"""The Fashion-MNIST sample that ships inside the package."""

from __future__ import annotations

import hashlib
import io
import json
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from keras_jsigr.datasets.class_names import FASHION_MNIST
from keras_jsigr.datasets.dataset import Dataset, to_unit_range

REPAIR = "The installed files are damaged: reinstall keras-jsigr."


def load_sample() -> Dataset:
    """Load the embedded, stratified sample of Fashion-MNIST.

    12,000 training images (1,200 per class) and 2,000 test images (200 per class),
    drawn from the official splits by a seeded rule and stored without loss. The
    pixels are checked against their SHA-256.

    Returns:
        The data; images are float32 `(N, 28, 28, 1)` in [0, 1].

    Raises:
        ValueError: If an embedded file is missing or damaged.

    Example:
        >>> data = load_sample()
        >>> data.x_train.shape, data.x_test.shape
        ((12000, 28, 28, 1), (2000, 28, 28, 1))
    """
    folder = resources.files("keras_jsigr") / "data" / "fashion_mnist"
    manifest = json.loads(_read(folder, "manifest.json"))
    x_train, y_train = _read_split(folder, manifest, "train")
    x_test, y_test = _read_split(folder, manifest, "test")
    return Dataset(
        x_train=to_unit_range(x_train),
        y_train=y_train,
        x_test=to_unit_range(x_test),
        y_test=y_test,
        class_names=FASHION_MNIST,
        name="fashion_mnist",
        source="the sample embedded in keras_jsigr",
    )


def _read_split(
    folder: Traversable, manifest: dict[str, Any], split: str
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    description = manifest["splits"][split]
    images = np.concatenate(
        [_read_mosaic(folder, manifest, name) for name in description["mosaics"]]
    )
    labels_file = f"{split}-labels.npy"
    stored = _read(folder, labels_file)
    if (
        hashlib.sha256(images.tobytes()).hexdigest() != description["pixels_sha256"]
        or hashlib.sha256(stored).hexdigest() != manifest["sha256"][labels_file]
    ):
        raise ValueError(
            f"The {split} split of the embedded sample does not match its SHA-256. "
            + REPAIR
        )
    labels = np.load(io.BytesIO(stored), allow_pickle=False)
    return images, labels.astype(np.int64)


def _read_mosaic(
    folder: Traversable, manifest: dict[str, Any], name: str
) -> npt.NDArray[np.uint8]:
    """Cut one mosaic into its images, left to right, then top to bottom."""
    rows, columns = manifest["mosaic"]["rows"], manifest["mosaic"]["columns"]
    height, width, channels = manifest["image_shape"]
    try:
        decoded = tf.io.decode_png(_read(folder, name), channels=channels)
    except tf.errors.InvalidArgumentError as error:
        raise ValueError(f"{name} of the embedded sample: {error}. {REPAIR}") from error
    mosaic: npt.NDArray[np.uint8] = decoded.numpy()
    if mosaic.shape != (rows * height, columns * width, channels):
        raise ValueError(
            f"{name} of the embedded sample has shape {mosaic.shape}; expected "
            f"{(rows * height, columns * width, channels)}. {REPAIR}"
        )
    tiles = mosaic.reshape(rows, height, columns, width, channels)
    return tiles.transpose(0, 2, 1, 3, 4).reshape(-1, height, width, channels)


def _read(folder: Traversable, name: str) -> bytes:
    try:
        return (folder / name).read_bytes()
    except OSError as error:
        raise ValueError(f"{name} of the embedded sample: {error}. {REPAIR}") from error
