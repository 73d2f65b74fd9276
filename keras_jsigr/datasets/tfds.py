"""Data that TensorFlow Datasets has already prepared on this machine.

The prepared folder is found and opened by its path. The ways that go through the
registered builders are not used: they ask the network about data that is not
prepared, and can hang for minutes when there is none.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_jsigr.datasets.dataset import Dataset, to_unit_range

VERSION = re.compile(r"\d+\.\d+\.\d+")
HINT = (
    "reading prepared TensorFlow Datasets needs the package tensorflow-datasets: "
    "pip install tensorflow-datasets importlib_resources"
)


def default_data_dir() -> Path:
    """Return the folder where TensorFlow Datasets prepares data.

    Returns:
        `$TFDS_DATA_DIR` if set, else `~/tensorflow_datasets`.

    Example:
        >>> isinstance(default_data_dir(), Path)
        True
    """
    chosen = os.environ.get("TFDS_DATA_DIR")
    return Path(chosen or "~/tensorflow_datasets").expanduser()


def find_prepared(name: str, data_dir: str | os.PathLike[str] | None) -> Path | None:
    """Find the newest prepared version of a data set.

    Args:
        name: `"mnist"`, or with a configuration or version, such as
            `"mnist_corrupted/shot_noise"` or `"mnist/3.0.1"`.
        data_dir: Folder of prepared data sets; `None` for the default one.

    Returns:
        The folder of the version, or `None` if none is prepared.

    Raises:
        ValueError: If several configurations are prepared and `name` names none.

    Example:
        >>> find_prepared("mnist", "no-such-folder") is None
        True
    """
    root = default_data_dir() if data_dir is None else Path(data_dir).expanduser()
    base = root.joinpath(*name.split("/"))
    for depth in ("", "*/", "*/*/"):
        found = [
            file.parent
            for file in base.glob(f"{depth}dataset_info.json")
            if VERSION.fullmatch(file.parent.name)
        ]
        if len({folder.parent for folder in found}) > 1:
            names = sorted({folder.parent.name for folder in found})
            raise ValueError(
                f"got {name!r}, of which {root} holds several configurations: "
                f"{', '.join(names)}. Name one: {name}/{names[0]}."
            )
        if found:
            return max(found, key=lambda v: tuple(map(int, v.name.split("."))))
    return None


def load_prepared(name: str, folder: str | os.PathLike[str]) -> Dataset:
    """Load an image classification set from its prepared folder.

    Args:
        name: Name of the data set, for messages.
        folder: Folder of the prepared version (holds `dataset_info.json`).

    Returns:
        The data; images are float32 `(N, H, W, C)` in [0, 1]. The test images are
        those of the split `test`, else of `validation`.

    Raises:
        ImportError: If tensorflow-datasets is not installed.
        ValueError: If the set has no 8-bit images of one shape with integer labels,
            or lacks a split.

    Example:
        ```python
        folder = find_prepared("mnist", None)
        data = load_prepared("mnist", folder)
        ```
    """
    try:
        import tensorflow_datasets
    except ImportError as error:
        raise ImportError(f"{error}; {HINT}") from error
    builder = tensorflow_datasets.builder_from_directory(os.fspath(folder))
    shape = _image_shape(name, builder.info.features)
    test = next((s for s in ("test", "validation") if s in builder.info.splits), None)
    if test is None or "train" not in builder.info.splits:
        raise ValueError(
            f"{name}: got the splits {sorted(builder.info.splits)}; expected 'train' "
            "and 'test' or 'validation'. Choose a data set that has both."
        )
    x_train, y_train = _read_split(builder, "train", shape)
    x_test, y_test = _read_split(builder, test, shape)
    return Dataset(
        x_train=to_unit_range(x_train),
        y_train=y_train,
        x_test=to_unit_range(x_test),
        y_test=y_test,
        class_names=tuple(builder.info.features["label"].names),
        name=name,
        source=f"TensorFlow Datasets prepared in {folder}",
    )


def _image_shape(name: str, features: Any) -> tuple[int, ...]:
    """Return the one shape of the images, or say why there is none."""
    known = set(features.keys()) if hasattr(features, "keys") else set()
    image = features["image"] if "image" in known else None
    label = features["label"] if "label" in known else None
    shape = tuple(getattr(image, "shape", None) or ())
    if (
        len(shape) != 3
        or None in shape
        or getattr(image, "dtype", None) != np.uint8
        or not hasattr(label, "names")
    ):
        raise ValueError(
            f"{name}: got the features {features}; expected 'image' of 8 bits with a "
            "fixed shape (H, W, C) and 'label' of classes. Choose an image "
            "classification set, or resize the images and give arrays to Keras."
        )
    return shape


def _read_split(
    builder: Any, split: str, shape: tuple[int, ...]
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Read one split in its stored order into arrays made beforehand."""
    count = int(builder.info.splits[split].num_examples)
    images = np.empty((count, *shape), np.uint8)
    labels = np.empty(count, np.int64)
    start = 0
    stored = builder.as_dataset(split=split, shuffle_files=False).batch(256)
    for batch in stored.as_numpy_iterator():
        stop = start + len(batch["label"])
        images[start:stop], labels[start:stop] = batch["image"], batch["label"]
        start = stop
    if start != count:
        raise ValueError(
            f"{builder.info.name}: got {start} examples in {split!r}; expected "
            f"{count}. Prepare the data set again."
        )
    return images, labels
