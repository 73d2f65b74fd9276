"""Image data in IDX files, the format of MNIST and Fashion-MNIST."""

from __future__ import annotations

import gzip
import math
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from keras_jsigr.datasets.class_names import class_names_of
from keras_jsigr.datasets.dataset import Dataset, to_unit_range

UNSIGNED_BYTE = 0x08
DEBIAN_FOLDER = Path("/usr/share/datasets")
FILES = {
    "x_train": "train-images-idx3-ubyte",
    "y_train": "train-labels-idx1-ubyte",
    "x_test": "t10k-images-idx3-ubyte",
    "y_test": "t10k-labels-idx1-ubyte",
}


def read_idx(path: str | os.PathLike[str]) -> npt.NDArray[np.uint8]:
    """Read one IDX file of unsigned bytes, gzip-compressed (`.gz`) or not.

    Args:
        path: The file. Header: two zero bytes, the type 0x08, the number of
            dimensions, then each dimension as a big-endian 32-bit number.

    Returns:
        uint8 array of the shape in the header, 0 to 255.

    Raises:
        ValueError: If the file is not IDX of unsigned bytes, is truncated, is longer
            than its header says, or is damaged gzip.
        OSError: If the file cannot be opened.

    Example:
        >>> import pathlib, tempfile
        >>> file = pathlib.Path(tempfile.mkdtemp()) / "labels-idx1-ubyte"
        >>> file.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 3]) + bytes([7, 0, 9]))
        11
        >>> read_idx(file)
        array([7, 0, 9], dtype=uint8)
    """
    path = Path(path)
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
            header = stream.read(4)
            if len(header) < 4 or header[:3] != bytes((0, 0, UNSIGNED_BYTE)):
                raise ValueError(
                    f"{path}: got a file that starts with {header.hex() or 'nothing'}; "
                    "expected 000008 and the number of dimensions (IDX of unsigned "
                    "bytes). Check that it is the right file."
                )
            dimensions = header[3]
            sizes = stream.read(4 * dimensions)
            if not 1 <= dimensions <= 4 or len(sizes) < 4 * dimensions:
                raise ValueError(
                    f"{path}: got a header of {dimensions} dimensions in {len(sizes)} "
                    "bytes; expected 1 to 4 dimensions of 4 bytes each. "
                    "Copy the file again."
                )
            shape = struct.unpack(f">{dimensions}I", sizes)
            content = stream.read()
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(
            f"{path}: got damaged or cut off gzip data ({error}); expected a whole "
            "file. Copy the file again."
        ) from error
    if len(content) != math.prod(shape):
        raise ValueError(
            f"{path}: got {len(content)} bytes of data; expected {math.prod(shape)} "
            f"for shape {shape}. Copy the file again."
        )
    return np.frombuffer(content, np.uint8).reshape(shape)


def load_idx(name: str, folder: str | os.PathLike[str]) -> Dataset:
    """Load the four IDX files of a data set from a folder.

    Args:
        name: Name of the data set, for messages and class names.
        folder: Holds `train-images-idx3-ubyte`, `train-labels-idx1-ubyte`,
            `t10k-images-idx3-ubyte` and `t10k-labels-idx1-ubyte`, each with or
            without `.gz`.

    Returns:
        The data; images are float32 `(N, H, W, 1)` in [0, 1], labels int64.

    Raises:
        ValueError: If a file is missing or damaged, or images and labels do not
            belong together.

    Example:
        ```python
        data = load_idx("fashion_mnist", "/usr/share/datasets/fashion-mnist")
        ```
    """
    paths = find_idx_files(folder)
    if paths is None:
        raise ValueError(
            f"{name}: got the folder {folder}; expected it to hold the files "
            f"{', '.join(FILES.values())}, each with or without .gz. Set `data_dir` "
            "to the folder of the files."
        )
    arrays = {key: read_idx(path) for key, path in paths.items()}
    for key, rank in {"x_train": 3, "x_test": 3, "y_train": 1, "y_test": 1}.items():
        if arrays[key].ndim != rank or not arrays[key].size:
            raise ValueError(
                f"{paths[key]}: got shape {arrays[key].shape}; expected {rank} "
                "dimensions and at least one entry. Check that it is the right file."
            )
    classes = int(max(arrays["y_train"].max(), arrays["y_test"].max())) + 1
    return Dataset(
        x_train=to_unit_range(arrays["x_train"][..., np.newaxis]),
        y_train=arrays["y_train"].astype(np.int64),
        x_test=to_unit_range(arrays["x_test"][..., np.newaxis]),
        y_test=arrays["y_test"].astype(np.int64),
        class_names=class_names_of(name, classes),
        name=name,
        source=f"IDX files in {folder}",
    )


def find_idx_files(folder: str | os.PathLike[str]) -> dict[str, Path] | None:
    """Find the four IDX files in a folder.

    Args:
        folder: Where to look; need not exist.

    Returns:
        The paths under the keys `x_train`, `y_train`, `x_test` and `y_test`, or
        `None` unless all four are there. A plain file is preferred to its `.gz`.

    Example:
        >>> find_idx_files("no-such-folder") is None
        True
    """
    found: dict[str, Path] = {}
    root = Path(folder).expanduser()
    for key, stem in FILES.items():
        for path in (root / stem, root / f"{stem}.gz"):
            if path.is_file():
                found[key] = path
                break
        else:
            return None
    return found


def debian_folder(name: str) -> Path:
    """Return where Debian's package of a data set puts its IDX files.

    Args:
        name: Name of the data set.

    Returns:
        The folder, whether it exists or not.

    Example:
        >>> debian_folder("fashion_mnist").as_posix()
        '/usr/share/datasets/fashion-mnist'
    """
    return DEBIAN_FOLDER / name.replace("_", "-")
