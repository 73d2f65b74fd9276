"""Image classification data from this machine; downloaded only where that is asked for."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import math
import os
import re
import struct
import zlib
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Literal, get_args

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from keras_jsigr.core.arguments import choice, share, tell
from keras_jsigr.core.files import local_path

__all__ = ["Dataset", "available", "from_folder", "load"]

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
Split = tuple[npt.NDArray[np.uint8], npt.NDArray[Any]]
Source = Literal["auto", "sample", "idx", "tfds"]
Folder = str | os.PathLike[str]
EMBEDDED = "fashion_mnist"
# One to three plain names, so that a name cannot lead out of `data_dir`.
NAME = re.compile(r"\w[\w.+-]*(/\w[\w.+-]*){0,2}")

# fmt: off
FASHION_MNIST = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker",
    "Bag", "Ankle boot",
)
# fmt: on
UNSIGNED_BYTE = 0x08
DEBIAN_FOLDER = Path("/usr/share/datasets")
FILES = {
    "x_train": "train-images-idx3-ubyte",
    "y_train": "train-labels-idx1-ubyte",
    "x_test": "t10k-images-idx3-ubyte",
    "y_test": "t10k-labels-idx1-ubyte",
}
REPAIR = "The installed files are damaged: reinstall keras-jsigr."
VERSION = re.compile(r"\d+\.\d+\.\d+")
INSTALL_HINT = (
    "reading prepared TensorFlow Datasets needs the package tensorflow-datasets: "
    "pip install tensorflow-datasets importlib_resources"
)


def load(
    name: str = EMBEDDED,
    *,
    source: Source = "auto",
    data_dir: Folder | None = None,
    download: bool = False,
    verbose: bool = True,
) -> Dataset:
    """Load an image classification data set from this machine.

    Args:
        name: Name of the data set. `"fashion_mnist"` ships inside the package as a
            sample of 12,000 training and 2,000 test images.
        source: `"sample"`: the embedded sample. `"idx"`: the four IDX files in `data_dir`, or where
            Debian's packages put them (`/usr/share/datasets/fashion-mnist`). `"tfds"`: a set that
            TensorFlow Datasets has prepared in `data_dir`, or in its default folder. `"auto"`: the
            sample for `"fashion_mnist"` without `data_dir`; else IDX files if there are any, else a
            prepared set.
        data_dir: Folder of the IDX files or of the prepared sets.
        download: Whether TensorFlow Datasets may download and prepare what is not here. `False`:
            the network is not asked.
        verbose: Whether to print one line that says what was read.

    Returns:
        The data; images are float32 `(N, H, W, C)` in [0, 1], labels int64 `(N,)`.

    Raises:
        ImportError: If a prepared set is read without tensorflow-datasets.
        TypeError: If `name` is not a string.
        ValueError: If the data is not on this machine or cannot be downloaded, is damaged, or is
            not image classification data; the message says what was tried.

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
    # "fashion-mnist" is fine too; names of configurations may have hyphens.
    first, *configuration = name.split("/")
    known = "/".join([first.replace("-", "_"), *configuration])
    choice("download", download, (False, True))
    if download and source not in ("auto", "tfds"):
        raise ValueError(
            f"`download`: got True with source={source!r}; expected 'auto' or 'tfds'. Leave out "
            "`source`: only TensorFlow Datasets downloads."
        )
    data = _read(known, source, data_dir, download)
    tell(
        f"{data.name}: {len(data.x_train):,} training and {len(data.x_test):,} test "
        f"images from {data.source}",
        verbose,
    )
    return data


def available(data_dir: Folder | None = None) -> dict[str, str]:
    """List the data sets that `load` finds on this machine, without reading them.

    Args:
        data_dir: Folder of sets prepared by TensorFlow Datasets; `None`: its default.

    Returns:
        Where each set is, by its name.

    Example:
        >>> import keras_jsigr as kj
        >>> kj.datasets.available("no such folder")["fashion_mnist"][:33]
        'a sample, embedded in keras_jsigr'
    """
    root = local_path(data_dir) if data_dir is not None else default_data_dir()
    prepared = {
        file.parent.parent.relative_to(root).as_posix(): f"prepared in {root}"
        for file in sorted(root.glob("*/**/dataset_info.json"))
        if VERSION.fullmatch(file.parent.name)
    }
    folders = sorted(DEBIAN_FOLDER.glob("*")) if DEBIAN_FOLDER.is_dir() else []
    files = {
        folder.name.replace("-", "_"): f"IDX files in {folder}"
        for folder in folders
        if find_idx_files(folder) is not None
    }
    embedded = "a sample, embedded in keras_jsigr"
    if EMBEDDED in files:
        embedded += f"; all images by source='idx', in {debian_folder(EMBEDDED)}"
    return {**prepared, **files, EMBEDDED: embedded}


def from_folder(
    folder: Folder,
    image_size: tuple[int, int],
    *,
    color_mode: Literal["rgb", "grayscale", "rgba"] = "rgb",
    test_share: float = 0.2,
    crop_to_aspect_ratio: bool = False,
    seed: int = 0,
    verbose: bool = True,
) -> Dataset:
    """Read images of your own, in one subfolder per class, into memory.

    `keras.utils.image_dataset_from_directory` reads them. A folder with `train` and
    `test` (or `validation`) inside is taken as it is split; any other is split here.

    Args:
        folder: Holds a subfolder of JPEG, PNG, BMP or GIF files for every class.
        image_size: `(height, width)` in pixels that images are resized to.
        color_mode: `"rgb"`, `"grayscale"` or `"rgba"`: 3, 1 or 4 channels.
        test_share: Share of the images to test on, between 0 and 1, where the folder
            is not split.
        crop_to_aspect_ratio: Whether to cut images to the shape of `image_size` rather than
            distort them.
        seed: Of the split, and of the order of the images.
        verbose: Whether to print one line that says what was read.

    Returns:
        The data; images are float32 `(N, H, W, C)` in [0, 1], in a random order; classes
        in the order of the subfolders' names. `x_test` of a split folder is `test`, else
        `validation`.

    Raises:
        ValueError: If there is no image, fewer than two classes, or a damaged file.

    Example:
        >>> import tempfile, pathlib, keras, numpy as np, keras_jsigr as kj
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name in ("cat", "dog"):
        ...         (pathlib.Path(folder) / name).mkdir()
        ...         for i in range(5):
        ...             file = f"{folder}/{name}/{i}.png"
        ...             keras.utils.save_img(file, np.ones((9, 9, 3)), scale=False)
        ...     kj.datasets.from_folder(folder, (8, 8), verbose=False).class_names
        ('cat', 'dog')
    """
    root = local_path(folder)
    if not root.is_dir():
        raise ValueError(f"`folder`: got {str(root)!r}; expected a folder of images.")
    share("test_share", test_share, ends="()")
    parts = {p.name.lower(): p for p in root.iterdir() if p.is_dir()}
    held = next((parts[name] for name in ("test", "validation", "val") if name in parts), None)
    options: dict[str, Any] = {
        "label_mode": "int",
        "color_mode": color_mode,
        "image_size": tuple(image_size),
        "crop_to_aspect_ratio": crop_to_aspect_ratio,
        "batch_size": None,
        "verbose": False,
    }
    read = keras.utils.image_dataset_from_directory
    try:
        whole = [root] if held is None or "train" not in parts else [parts["train"], held]
        streams = [read(each, shuffle=False, **options) for each in whole]
        names = [tuple(stream.class_names) for stream in streams]
        if names[0] != names[-1] or len(names[0]) < 2:
            raise ValueError(
                f"got the classes {sorted(set(names[0]) ^ set(names[-1])) or names[0]} in one part "
                "or alone; expected the same two or more in both"
            )
        train, *tests = (_stacked(stream, seed) for stream in streams)
    except (ValueError, tf.errors.OpError) as error:
        reason = " ".join(str(getattr(error, "message", error)).split())
        raise ValueError(
            f"The images in '{root}' cannot be read: {reason}. Expected a subfolder of JPEG, PNG, "
            "BMP or GIF files per class; remove damaged files."
        ) from error
    if tests:
        (test,) = tests
    else:
        # Not by Keras, which prints what it splits.
        count = max(1, round(test_share * len(train[1])))
        test, train = (
            (train[0][rows], train[1][rows]) for rows in (slice(count), slice(count, None))
        )
    data = Dataset(*train, *test, names[0], root.name, f"the folder {root}")
    tell(
        f"{data.name}: {len(data.x_train):,} training and {len(data.x_test):,} test images of "
        f"{len(names[0])} classes from {data.source}",
        verbose,
    )
    return data


def _stacked(stream: tf.data.Dataset, seed: int) -> tuple[FloatArray, IntArray]:
    """Collect images in a random order, so that the first ones are of all classes."""
    images, labels = zip(*stream.as_numpy_iterator(), strict=True)
    order = np.random.default_rng(seed).permutation(len(labels))
    x = np.empty((len(labels), *images[0].shape), np.float32)
    for place, row in enumerate(order):
        np.divide(images[row], np.float32(255), out=x[place])
    return x, np.array(labels, np.int64)[order]


def _read(name: str, source: Source, data_dir: Folder | None, download: bool) -> Dataset:
    embedded = name == EMBEDDED and data_dir is None
    if source == "sample" and not embedded:
        raise ValueError(
            f"got name={name!r} and data_dir={data_dir!r} with source='sample'; expected "
            f"{EMBEDDED!r} without a folder: only that one is embedded. Use source='auto'."
        )
    if source == "sample" or (source == "auto" and embedded):
        return load_sample()
    tried = []
    if source in ("auto", "idx"):
        files = data_dir if data_dir is not None else debian_folder(name)
        data = load_idx(name, files)
        if data is not None:
            return data
        tried.append(f"the IDX files {', '.join(FILES.values())} [.gz] in {files}")
    if source in ("auto", "tfds"):
        root = data_dir if data_dir is not None else default_data_dir()
        prepared = find_prepared(name, root)
        if prepared is None and download:
            prepared = prepare(name, root)
        if prepared is not None:
            return load_prepared(name, prepared)
        tried.append(f"a set prepared by TensorFlow Datasets in {root}")
    raise ValueError(
        f"the data set {name!r} is not on this machine; tried {', then '.join(tried)}. Nothing was "
        "downloaded: pass `download=True`, or prepare it where there is a network with `pip "
        f"install tensorflow-datasets importlib_resources` and `tfds build {name}`, or set "
        f"`data_dir` to a folder that holds it. load({EMBEDDED!r}) needs no files."
    )


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """The training and test images of one classification task.

    Attributes:
        x_train: float32 images `(N, H, W, C)` in [0, 1].
        y_train: int64 labels `(N,)`, positions in `class_names`.
        x_test: float32 images `(M, H, W, C)` in [0, 1].
        y_test: int64 labels `(M,)`.
        class_names: One name per class.
        name: Name of the task, such as `"fashion_mnist"`.
        source: Where the images were read from, in words.

    Example:
        >>> from keras_jsigr import datasets
        >>> data = datasets.load("fashion_mnist", verbose=False)
        >>> (x_train, y_train), (x_test, y_test) = data.as_tuples()
        >>> x_train.shape, data.class_names[y_train[0]]
        ((12000, 28, 28, 1), 'Sandal')
    """

    x_train: FloatArray
    y_train: IntArray
    x_test: FloatArray
    y_test: IntArray
    class_names: tuple[str, ...]
    name: str
    source: str

    def __post_init__(self) -> None:
        """Check that the arrays fit each other."""
        last = len(self.class_names) - 1
        for split, (x, y) in zip(("training", "test"), self.as_tuples(), strict=True):
            if x.ndim != 4 or y.shape != x.shape[:1] or not len(x):
                raise ValueError(
                    f"{self.name}: got {split} images of shape {x.shape} and labels of "
                    f"shape {y.shape}; expected (N, H, W, C) and (N,) with N at least "
                    "1. Check that both files are of the same split."
                )
            if y.min() < 0 or y.max() > last:
                raise ValueError(
                    f"{self.name}: got {split} labels from {y.min()} to {y.max()}; "
                    f"expected 0 to {last}, one per class. Renumber the labels."
                )
        if self.x_train.shape[1:] != self.x_test.shape[1:]:
            raise ValueError(
                f"{self.name}: got training images of shape {self.x_train.shape[1:]} "
                f"and test images of shape {self.x_test.shape[1:]}; expected one "
                "shape. Make both splits from the same data."
            )

    def as_tuples(self) -> tuple[tuple[FloatArray, IntArray], tuple[FloatArray, IntArray]]:
        """Return `((x_train, y_train), (x_test, y_test))`, as `keras.datasets` does."""
        return (self.x_train, self.y_train), (self.x_test, self.y_test)

    def __repr__(self) -> str:
        shape = "x".join(str(side) for side in self.x_train.shape[1:])
        return (
            f"<Dataset {self.name}: {len(self.x_train)} training and {len(self.x_test)} test "
            f"images {shape}, {len(self.class_names)} classes, from {self.source}>"
        )


def load_sample() -> Dataset:
    """Load the embedded, stratified sample of Fashion-MNIST."""
    folder = resources.files("keras_jsigr") / "data" / EMBEDDED
    try:
        manifest = json.loads(_read_sample_file(folder, "manifest.json"))
        train, test = (_read_sample_split(folder, manifest, split) for split in ("train", "test"))
    except (OSError, ValueError, tf.errors.InvalidArgumentError) as error:
        raise ValueError(f"The embedded sample: {error}. {REPAIR}") from error
    source = "the sample embedded in keras_jsigr"
    return _of_bytes(train, test, FASHION_MNIST, EMBEDDED, source)


def _of_bytes(
    train: Split, test: Split, class_names: tuple[str, ...], name: str, source: str
) -> Dataset:
    (x_train, y_train), (x_test, y_test) = train, test
    return Dataset(
        to_unit_range(x_train),
        y_train.astype(np.int64),
        to_unit_range(x_test),
        y_test.astype(np.int64),
        class_names,
        name,
        source,
    )


def _read_sample_split(folder: Traversable, manifest: dict[str, Any], split: str) -> Split:
    description, labels_file = manifest["splits"][split], f"{split}-labels.npy"
    images = np.concatenate(
        [_read_mosaic(folder, manifest, name) for name in description["mosaics"]]
    )
    stored = _read_sample_file(folder, labels_file)
    if (
        hashlib.sha256(images.tobytes()).hexdigest() != description["pixels_sha256"]
        or hashlib.sha256(stored).hexdigest() != manifest["sha256"][labels_file]
    ):
        raise ValueError(f"the {split} split does not match its SHA-256")
    return images, np.load(io.BytesIO(stored), allow_pickle=False)


def _read_mosaic(folder: Traversable, manifest: dict[str, Any], name: str) -> npt.NDArray[np.uint8]:
    """Cut one mosaic into its images, left to right, then top to bottom."""
    rows, columns = manifest["mosaic"]["rows"], manifest["mosaic"]["columns"]
    height, width, channels = manifest["image_shape"]
    stored = _read_sample_file(folder, name)
    mosaic: npt.NDArray[np.uint8] = tf.io.decode_png(stored, channels=channels).numpy()
    expected = (rows * height, columns * width, channels)
    if mosaic.shape != expected:
        raise ValueError(f"{name} has shape {mosaic.shape}, expected {expected}")
    tiles = mosaic.reshape(rows, height, columns, width, channels)
    return tiles.transpose(0, 2, 1, 3, 4).reshape(-1, height, width, channels)


def _read_sample_file(folder: Traversable, name: str) -> bytes:
    return (folder / name).read_bytes()


def read_idx(path: Folder) -> npt.NDArray[np.uint8]:
    """Read one IDX file of unsigned bytes, gzip-compressed (`.gz`) or not."""
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
                    f"{path}: got a header of {dimensions} dimensions in {len(sizes)} bytes; "
                    "expected 1 to 4 dimensions of 4 bytes each. Copy the file again."
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


def load_idx(name: str, folder: Folder) -> Dataset | None:
    """Load the four IDX files of a data set from a folder, if they are all there."""
    paths = find_idx_files(folder)
    if paths is None:
        return None
    arrays = {key: read_idx(path) for key, path in paths.items()}
    for key, array in arrays.items():
        rank = 3 if key.startswith("x") else 1
        if array.ndim != rank or not array.size:
            raise ValueError(
                f"{paths[key]}: got shape {array.shape}; expected {rank} "
                "dimensions and at least one entry. Check that it is the right file."
            )
    classes = int(max(arrays["y_train"].max(), arrays["y_test"].max())) + 1
    train, test = (
        (arrays[f"x_{split}"][..., np.newaxis], arrays[f"y_{split}"]) for split in ("train", "test")
    )
    names = tuple(map(str, range(classes)))
    if name == EMBEDDED and classes <= len(FASHION_MNIST):
        names = FASHION_MNIST
    return _of_bytes(train, test, names, name, f"IDX files in {folder}")


def find_idx_files(folder: Folder) -> dict[str, Path] | None:
    """Find the four IDX files in a folder."""
    found: dict[str, Path] = {}
    for key, stem in FILES.items():
        paths = [local_path(folder) / name for name in (stem, f"{stem}.gz")]
        present = [path for path in paths if path.is_file()]
        if not present:
            return None
        found[key] = present[0]
    return found


def debian_folder(name: str) -> Path:
    """Return where Debian's package of a data set puts its IDX files."""
    return DEBIAN_FOLDER / name.replace("_", "-")


def default_data_dir() -> Path:
    """Return the folder where TensorFlow Datasets prepares data."""
    return local_path(os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets")


def find_prepared(name: str, root: Folder) -> Path | None:
    """Find the newest prepared version of a data set."""
    base = local_path(root).joinpath(*name.split("/"))
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


def prepare(name: str, root: Folder) -> Path:
    """Download a set and prepare it in a folder, as TFRecord files."""
    tfds = _tensorflow_datasets()
    try:
        builder = tfds.builder(name, data_dir=os.fspath(local_path(root)), file_format="tfrecord")
        builder.download_and_prepare()
    except Exception as error:  # of the network, of the disk or of the code of the set
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise ValueError(
            f"{name}: TensorFlow Datasets cannot prepare it in {root}: {reason.rstrip('.')}. Check "
            f"the name and the network, or prepare it elsewhere with `tfds build {name}`."
        ) from error
    return Path(builder.data_dir)


def _tensorflow_datasets() -> Any:
    try:
        import tensorflow_datasets
    except ImportError as error:
        raise ImportError(f"{error}; {INSTALL_HINT}") from error
    return tensorflow_datasets


def load_prepared(name: str, folder: Folder) -> Dataset:
    """Load an image classification set from its prepared folder."""
    tensorflow_datasets = _tensorflow_datasets()
    try:
        builder = tensorflow_datasets.builder_from_directory(os.fspath(folder))
    except Exception as error:  # of JSON, protocol buffers or TensorFlow Datasets
        raise ValueError(_damaged(name, folder, error)) from error
    info = builder.info
    file_format = getattr(info.file_format, "value", "tfrecord")
    if file_format not in ("tfrecord", "riegeli"):
        raise ValueError(
            f"{name}: got a set prepared in the format {file_format!r} in {folder}; expected "
            f"'tfrecord'. Prepare it again with `tfds build --file_format=tfrecord {name}`."
        )
    shape = _image_shape(name, info.features)
    test = next((s for s in ("test", "validation") if s in info.splits), None)
    if test is None or "train" not in info.splits:
        raise ValueError(
            f"{name}: got the splits {sorted(info.splits)}; expected 'train' and "
            "'test' or 'validation'. Choose a data set that has both."
        )
    return _of_bytes(
        _read_prepared_split(builder, "train", shape),
        _read_prepared_split(builder, test, shape),
        tuple(info.features["label"].names),
        name,
        f"TensorFlow Datasets prepared in {folder}",
    )


def _image_shape(name: str, features: Any) -> tuple[int, ...]:
    """Return the shape of the images; raise if they have no fixed one."""
    known = features.keys() if hasattr(features, "keys") else ()
    image, label = (features[k] if k in known else None for k in ("image", "label"))
    shape = tuple(getattr(image, "shape", None) or ())
    if (
        len(shape) != 3
        or None in shape
        or getattr(image, "np_dtype", None) != np.uint8
        or not hasattr(label, "names")
    ):
        raise ValueError(
            f"{name}: got the features {features}; expected 'image' of 8 bits with a "
            "fixed shape (H, W, C) and 'label' of classes. Choose an image "
            "classification set, or resize the images and give arrays to Keras."
        )
    return shape


def _read_prepared_split(builder: Any, split: str, shape: tuple[int, ...]) -> Split:
    """Read one split in its stored order, into preallocated arrays."""
    count = int(builder.info.splits[split].num_examples)
    images = np.empty((count, *shape), np.uint8)
    labels = np.empty(count, np.int64)
    start = 0
    try:
        stored = builder.as_dataset(split=split, shuffle_files=False).batch(256)
        for batch in stored.as_numpy_iterator():
            stop = start + len(batch["label"])
            images[start:stop], labels[start:stop] = batch["image"], batch["label"]
            start = stop
        if start != count:
            raise ValueError(f"got {start} examples in {split!r}, expected {count}")
    except (tf.errors.OpError, AssertionError, OSError, ValueError) as error:
        raise ValueError(_damaged(builder.name, builder.data_dir, error)) from error
    return images, labels


def _damaged(name: str, folder: Any, error: Exception) -> str:
    reason = re.sub(r"\{\{.*?\}\}|\[Op:.*", "", str(error).strip(), flags=re.DOTALL)
    reason = (reason.strip() or type(error).__name__).splitlines()[0].rstrip(".")
    return (
        f"{name}: the set prepared in {folder} is damaged or incomplete: {reason}. "
        f"Delete the folder and prepare it again with `tfds build {name}`."
    )


def to_unit_range(images: npt.NDArray[np.uint8]) -> FloatArray:
    """Scale 8-bit images to float32 in [0, 1]."""
    return np.divide(images, np.float32(255), dtype=np.float32)
