"""One call for all sources of data."""

from __future__ import annotations

import os
import re
from typing import Literal, get_args

from keras_jsigr.core.settings import choice
from keras_jsigr.datasets import idx, tfds
from keras_jsigr.datasets.dataset import Dataset
from keras_jsigr.datasets.sample import load_sample

Source = Literal["auto", "sample", "idx", "tfds"]
Folder = str | os.PathLike[str]

EMBEDDED = "fashion_mnist"
# One to three plain names, so that a name can never lead out of `data_dir`.
NAME = re.compile(r"\w[\w.+-]*(/\w[\w.+-]*){0,2}")


def load(
    name: str = EMBEDDED,
    *,
    source: Source = "auto",
    data_dir: Folder | None = None,
    verbose: bool = True,
) -> Dataset:
    """Load an image classification data set from this machine.

    Nothing is ever downloaded.

    Args:
        name: Name of the data set. `"fashion_mnist"` ships inside the package as a
            sample of 12,000 training and 2,000 test images.
        source: Where to read from.

            - `"sample"`: the embedded sample.
            - `"idx"`: the four IDX files in `data_dir`, or where Debian's packages
              put them (`/usr/share/datasets/fashion-mnist`).
            - `"tfds"`: a set that TensorFlow Datasets has already prepared in
              `data_dir`, or in its default folder.
            - `"auto"`: the sample for `"fashion_mnist"` without `data_dir`; else
              IDX files if there are any, else a prepared set.
        data_dir: Folder of the IDX files or of the prepared sets.
        verbose: Whether to print one line that says what was read.

    Returns:
        The data; images are float32 `(N, H, W, C)` in [0, 1], labels int64 `(N,)`.

    Raises:
        ImportError: If a prepared set is read without tensorflow-datasets.
        TypeError: If `name` is not a string.
        ValueError: If the data is not on this machine, is damaged, or is not image
            classification data; the message says what was tried.

    Example:
        >>> from keras_jsigr import datasets
        >>> data = datasets.load("fashion_mnist", verbose=False)
        >>> data.x_test.shape, data.x_test.dtype
        ((2000, 28, 28, 1), dtype('float32'))
    """
    if not isinstance(name, str):
        raise TypeError(
            f"`name`: got {type(name).__name__}; expected a string such as "
            f"{EMBEDDED!r}. Give arrays of your own directly to `fit`."
        )
    if not NAME.fullmatch(name):
        raise ValueError(
            f"`name`: got {name!r}; expected a name such as 'mnist' or "
            "'mnist_corrupted/shot_noise'. Put a path into `data_dir`."
        )
    choice("source", source, get_args(Source), advice="Use 'auto' if in doubt.")
    # Hyphens as people write them; the names of configurations may have their own.
    first, *configuration = name.split("/")
    known = "/".join([first.replace("-", "_"), *configuration])
    data = _read(known, source, data_dir)
    if verbose:
        print(
            f"{data.name}: {len(data.x_train):,} training and {len(data.x_test):,} "
            f"test images from {data.source}"
        )
    return data


def _read(name: str, source: Source, data_dir: Folder | None) -> Dataset:
    if source == "sample" or (
        source == "auto" and name == EMBEDDED and data_dir is None
    ):
        if name != EMBEDDED or data_dir is not None:
            raise ValueError(
                f"got name={name!r} and data_dir={data_dir!r} with source='sample'; "
                f"expected {EMBEDDED!r} without a folder: only that one is embedded. "
                "Use source='auto'."
            )
        return load_sample()

    tried = []
    if source in ("auto", "idx"):
        files = data_dir if data_dir is not None else idx.debian_folder(name)
        if idx.find_idx_files(files) is not None:
            return idx.load_idx(name, files)
        tried.append(f"the four IDX files {idx.FILES['x_train']}[.gz] ... in {files}")
    if source in ("auto", "tfds"):
        prepared = tfds.find_prepared(name, data_dir)
        if prepared is not None:
            return tfds.load_prepared(name, prepared)
        root = data_dir if data_dir is not None else tfds.default_data_dir()
        tried.append(f"a set prepared by TensorFlow Datasets in {root}")
    raise ValueError(
        f"the data set {name!r} is not on this machine; tried {', then '.join(tried)}. "
        f"Nothing is downloaded here: prepare it where there is a network with "
        f"`pip install tensorflow-datasets importlib_resources` and `tfds build "
        f"{name}`, or set `data_dir` to a folder that holds it. "
        f"load({EMBEDDED!r}) needs no files."
    )
