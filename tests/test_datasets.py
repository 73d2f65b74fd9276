"""Data sets: IDX files, the embedded sample, and prepared TensorFlow Datasets."""

import gzip
import hashlib
import importlib.util
import json
import socket
import struct
import sys
import time
from importlib import resources
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_jsigr
from keras_jsigr import datasets
from keras_jsigr.datasets import (
    FILES,
    Dataset,
    debian_folder,
    default_data_dir,
    find_idx_files,
    find_prepared,
    load,
    load_idx,
    read_idx,
)


def idx_bytes(array, kind=8):
    sizes = struct.pack(f">{array.ndim}I", *array.shape)
    return bytes((0, 0, kind, array.ndim)) + sizes + array.tobytes()


@pytest.fixture
def arrays():
    random = np.random.default_rng(0)
    return {
        "train-images-idx3-ubyte": random.integers(0, 256, (12, 5, 4), np.uint8),
        "train-labels-idx1-ubyte": np.arange(12, dtype=np.uint8) % 3,
        "t10k-images-idx3-ubyte": random.integers(0, 256, (6, 5, 4), np.uint8),
        "t10k-labels-idx1-ubyte": np.arange(6, dtype=np.uint8) % 3,
    }


def write(folder, arrays, compress=False):
    for name, array in arrays.items():
        content = idx_bytes(array)
        if compress:
            (folder / f"{name}.gz").write_bytes(gzip.compress(content))
        else:
            (folder / name).write_bytes(content)


def test_a_folder_is_read_exactly(tmp_path, arrays, capsys):
    expected = arrays["train-images-idx3-ubyte"][..., None] / np.float32(255)
    for name, compress in (("plain", False), ("packed", True)):
        folder = tmp_path / name
        folder.mkdir()
        write(folder, arrays, compress)
        data = datasets.load("toys", source="idx", data_dir=folder)
        np.testing.assert_array_equal(data.x_train, expected)
        np.testing.assert_array_equal(data.y_test, arrays["t10k-labels-idx1-ubyte"])
        assert data.x_train.dtype == np.float32
        assert data.y_train.dtype == np.int64
        assert data.class_names == ("0", "1", "2")
        assert capsys.readouterr().out == (
            f"keras_jsigr: toys: 12 training and 6 test images from IDX files in {folder}\n"
        )


def test_auto_takes_a_folder_before_the_sample(tmp_path, arrays):
    write(tmp_path, arrays)
    data = datasets.load("fashion_mnist", data_dir=str(tmp_path), verbose=False)
    assert len(data.x_train) == 12
    assert data.class_names[8] == "Bag"


def test_bad_content_is_refused(tmp_path):
    matrix = idx_bytes(np.zeros((4, 5), np.uint8))
    for content, message in (
        (b"", "starts with nothing"),
        (b"\x89PNG....", "starts with 89504e47"),
        (idx_bytes(np.zeros((2, 2), np.uint8), kind=0x0D), "expected 000008"),
        (bytes((0, 0, 8, 0)), "0 dimensions"),
        (bytes((0, 0, 8, 200)) + bytes(900), "200 dimensions"),
        (bytes((0, 0, 8, 3, 0, 0, 0, 9)), "in 4 bytes"),
        (matrix[:-1], "got 19 bytes.*expected 20"),
        (matrix + b"x", "got 21 bytes.*expected 20"),
        (bytes((0, 0, 8, 2)) + b"\xff" * 8 + b"x", "got 1 bytes"),
    ):
        for name, stored in (("bad", content), ("bad.gz", gzip.compress(content))):
            path = tmp_path / name
            path.write_bytes(stored)
            with pytest.raises(ValueError, match=message) as caught:
                read_idx(path)
            assert str(path) in str(caught.value)


def test_damaged_gzip_is_refused(tmp_path):
    random = idx_bytes(np.random.default_rng(1).integers(0, 256, (50, 50), np.uint8))
    whole = gzip.compress(random)
    middle = len(whole) // 2
    flipped = whole[:middle] + bytes([whole[middle] ^ 0xFF]) + whole[middle + 1 :]
    path = tmp_path / "images.gz"
    for content in (whole[:-500], flipped, random):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="gzip"):
            read_idx(path)


def test_a_missing_file_is_named(tmp_path, arrays):
    write(tmp_path, arrays)
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    assert find_idx_files(tmp_path) is None
    with pytest.raises(ValueError, match="t10k-labels-idx1-ubyte"):
        load("toys", source="idx", data_dir=tmp_path)


def test_files_that_do_not_fit_each_other_are_refused(tmp_path, arrays):
    images, labels = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
    for wrong, message in (
        ({labels: arrays[images]}, "expected 1 dimensions"),
        ({labels: arrays["t10k-labels-idx1-ubyte"]}, "same split"),
        ({"t10k-images-idx3-ubyte": np.zeros((6, 4, 5), np.uint8)}, "one shape"),
    ):
        write(tmp_path, {**arrays, **wrong})
        with pytest.raises(ValueError, match=message):
            load_idx("toys", tmp_path)


@pytest.mark.skipif(
    find_idx_files(debian_folder("fashion_mnist")) is None,
    reason="Debian's dataset-fashion-mnist is absent",
)
def test_the_full_set_of_debian():
    data = datasets.load("fashion_mnist", source="idx", verbose=False)
    assert data.x_train.shape == (60000, 28, 28, 1)
    assert data.x_test.shape == (10000, 28, 28, 1)
    np.testing.assert_array_equal(np.bincount(data.y_train), np.full(10, 6000))
    assert "/usr/share/datasets/fashion-mnist" in data.source


@pytest.fixture(autouse=True)
def _no_network_no_home(monkeypatch, tmp_path):
    def refuse(*args, **kwargs):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))


def test_the_default_is_the_sample(capsys):
    data = load()
    (x_train, y_train), (x_test, y_test) = data.as_tuples()
    assert (len(x_train), len(y_train), len(x_test), len(y_test)) == (
        12000,
        12000,
        2000,
        2000,
    )
    assert capsys.readouterr().out == (
        "keras_jsigr: fashion_mnist: 12,000 training and 2,000 test images from the "
        "sample embedded in keras_jsigr\n"
    )
    assert "28x28x1, 10 classes" in repr(data)
    assert (resources.files(keras_jsigr) / "py.typed").is_file()  # beside the files of data


def test_quiet(capsys):
    # A dash is an underscore.
    data = load("fashion-mnist", source="sample", verbose=False)
    assert data.class_names[0] == "T-shirt/top"
    keras.config.disable_interactive_logging()
    try:
        load()
    finally:
        keras.config.enable_interactive_logging()
    assert capsys.readouterr() == ("", "")


def test_a_missing_set_fails_at_once_and_says_how_to_get_it(tmp_path):
    for name, source in (("cifar10", "auto"), ("fashion_mnist/9.9.9", "tfds")):
        start = time.perf_counter()
        with pytest.raises(ValueError, match=f"tfds build {name}") as caught:
            load(name, source=source)
        assert time.perf_counter() - start < 2
        assert str(tmp_path / "tfds") in str(caught.value)
        assert ("IDX" in str(caught.value)) == (source == "auto")
    with pytest.raises(ValueError, match="not on this machine") as caught:
        load("fashion_mnist", data_dir=tmp_path)
    assert str(caught.value).count(str(tmp_path)) == 2


def test_a_path_is_no_name():
    for name in ("../secrets", "/etc", "a//b", "", "mnist/../x", "."):
        with pytest.raises(ValueError, match="data_dir"):
            load(name)


def test_arguments_of_wrong_kind():
    with pytest.raises(TypeError, match="got ndarray"):
        load(np.zeros(3))
    with pytest.raises(ValueError, match="got 'web', expected one of"):
        load(source="web")
    with pytest.raises(ValueError, match="only that one is embedded"):
        load("mnist", source="sample")
    with pytest.raises(ValueError, match="only that one is embedded"):
        load(source="sample", data_dir="somewhere")


def test_labels_outside_the_names_are_refused():
    x = np.zeros((2, 3, 3, 1), np.float32)
    with pytest.raises(ValueError, match="labels from -1 to 0"):
        Dataset(
            x_train=x,
            y_train=np.array([0, -1]),
            x_test=x,
            y_test=np.array([0, 1]),
            class_names=("a", "b"),
            name="toys",
            source="here",
        )


FOLDER = Path(str(resources.files("keras_jsigr"))) / "data" / "fashion_mnist"


OFFICIAL = find_idx_files(debian_folder("fashion_mnist"))


# Of the pixels of all images, not of the files: they hold for every encoder.
PIXELS = {
    "train": "db241225eb7bc35045bf116d73295ab90d99ae2c9ea23c7fa31eb9160de5710c",
    "test": "15ea68a2974c93956b0db50dd27b3a185a2da948edf29afb55611a2f155184f8",
}


LABELS = {
    "train": "d6917ed670aab1e69bc840c93e60679360f6150ce7a5dab9d06744133ae0c5e0",
    "test": "1dc4078b038d241ca111cbd18e8c6e2ee943ca17684f4cf5200f8a44d3843508",
}


@pytest.fixture(scope="module")
def data():
    return datasets.load_sample()


def splits(data):
    return {
        "train": (data.x_train, data.y_train),
        "test": (data.x_test, data.y_test),
    }


def as_bytes(x):
    return np.rint(x * 255).astype(np.uint8)


def test_the_sample_is_stratified_mixed_and_has_the_known_checksums(data):
    for split, per_class in (("train", 1200), ("test", 200)):
        x, y = splits(data)[split]
        assert x.shape == (10 * per_class, 28, 28, 1)
        assert x.dtype == np.float32
        assert y.dtype == np.int64
        assert (x.min(), x.max()) == (0.0, 1.0)
        np.testing.assert_array_equal(np.bincount(y), np.full(10, per_class))
        for block in y.reshape(-1, 1000):
            assert np.bincount(block, minlength=10).min() >= 60
        assert hashlib.sha256(as_bytes(x).tobytes()).hexdigest() == PIXELS[split]
        stored = (FOLDER / f"{split}-labels.npy").read_bytes()
        assert hashlib.sha256(stored).hexdigest() == LABELS[split]


@pytest.mark.skipif(OFFICIAL is None, reason="Debian's dataset-fashion-mnist is absent")
def test_equal_to_the_official_files(data):
    for split in ("train", "test"):
        x, y = splits(data)[split]
        index = np.load(FOLDER / f"{split}-index.npy", allow_pickle=False)
        assert len(np.unique(index)) == len(index)
        official = read_idx(OFFICIAL[f"x_{split}"])
        np.testing.assert_array_equal(as_bytes(x)[..., 0], official[index])
        np.testing.assert_array_equal(y, read_idx(OFFICIAL[f"y_{split}"])[index])


def test_files_match_the_manifest_and_stay_small():
    manifest = json.loads((FOLDER / "manifest.json").read_bytes())
    files = {f.name for f in FOLDER.iterdir() if f.suffix in (".png", ".npy")}
    assert files == set(manifest["sha256"])
    for name, expected in manifest["sha256"].items():
        content = (FOLDER / name).read_bytes()
        assert hashlib.sha256(content).hexdigest() == expected
        assert len(content) < 2**20
    assert sum(f.stat().st_size for f in FOLDER.iterdir()) <= 6_000_000
    listed = (FOLDER / "README.md").read_text()
    assert all(digest in listed for digest in manifest["sha256"].values())


def test_damage_is_noticed(monkeypatch):
    read = datasets._read_sample_file
    for name, damaged in (
        ("train-00.png", lambda folder, name: read(folder, name)[:5000]),
        ("test-01.png", lambda folder, name: b"not an image"),
        ("test-labels.npy", lambda folder, name: read(folder, name)[:-1] + b"\x01"),
        ("test-01.png", lambda folder, name: read(folder, "test-00.png")),
    ):

        def replaced(folder, wanted, name=name, damaged=damaged):
            return damaged(folder, wanted) if wanted == name else read(folder, wanted)

        monkeypatch.setattr(datasets, "_read_sample_file", replaced)
        with pytest.raises(ValueError, match="reinstall keras-jsigr"):
            datasets.load_sample()


SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "make_fashion_mnist_sample.py"


@pytest.mark.skipif(OFFICIAL is None, reason="Debian's dataset-fashion-mnist is absent")
def test_the_script_chooses_the_same_images():
    pytest.importorskip("PIL")
    spec = importlib.util.spec_from_file_location("make_sample", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    for split, prefix in script.OFFICIAL.items():
        assert FILES[f"y_{split}"].startswith(prefix)
        labels = read_idx(OFFICIAL[f"y_{split}"])
        index = script.choose(labels, script.PER_CLASS[split], script.SEED)
        stored = np.load(FOLDER / f"{split}-index.npy", allow_pickle=False)
        np.testing.assert_array_equal(index, stored)


INSTALLED = importlib.util.find_spec("tensorflow_datasets") is not None


needs_tfds = pytest.mark.skipif(not INSTALLED, reason="needs tensorflow-datasets")


RANDOM = np.random.default_rng(0)


IMAGES = RANDOM.integers(0, 256, (300, 6, 5, 3), np.uint8)


LABELS_TFDS = np.arange(300) % 3


def pretend(root, *versions):
    for version in versions:
        (root / version).mkdir(parents=True)
        (root / version / "dataset_info.json").write_text(json.dumps({}))


def test_the_newest_version_is_found(tmp_path):
    pretend(tmp_path / "toys", "1.2.0", "1.10.0", "2.0.0.incompleteAB12")
    assert find_prepared("toys", tmp_path).name == "1.10.0"
    assert find_prepared("toys/1.2.0", tmp_path).name == "1.2.0"
    assert find_prepared("other", tmp_path) is None


def test_one_configuration_is_found_and_several_are_refused(tmp_path):
    pretend(tmp_path / "toys" / "blue", "1.0.0")
    assert find_prepared("toys", tmp_path).parent.name == "blue"
    pretend(tmp_path / "toys" / "red", "1.0.0")
    with pytest.raises(ValueError, match=r"blue, red\. Name one: toys/blue"):
        find_prepared("toys", tmp_path)
    assert find_prepared("toys/red", tmp_path).parent.name == "red"


def test_a_configuration_is_listed_once_and_may_have_a_hyphen(tmp_path, monkeypatch):
    pretend(tmp_path / "toys" / "light-blue", "1.0.0", "1.1.0")
    pretend(tmp_path / "toys" / "red", "1.0.0")
    with pytest.raises(ValueError, match=r": light-blue, red\. "):
        find_prepared("toys", tmp_path)
    asked, data = [], load(verbose=False)
    monkeypatch.setattr(datasets, "load_prepared", lambda *a: asked.append(a) or data)
    pretend(tmp_path / "my_toys" / "light-blue", "1.0.0")
    load("my-toys/light-blue", data_dir=tmp_path, verbose=False)
    assert asked[0][1] == tmp_path / "my_toys" / "light-blue" / "1.0.0"


def test_a_folder_of_the_user_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    pretend(tmp_path / "data" / "toys", "1.0.0")
    assert find_prepared("toys", "~/data") == tmp_path / "data" / "toys" / "1.0.0"


def test_the_default_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    assert default_data_dir() == tmp_path
    monkeypatch.delenv("TFDS_DATA_DIR")
    assert default_data_dir().name == "tensorflow_datasets"


def test_what_cannot_be_read_is_named(tmp_path, monkeypatch):
    """With a stand-in for the package, which need not be installed."""
    features = {
        "image": SimpleNamespace(shape=(6, 5, 3), np_dtype=np.uint8),
        "label": SimpleNamespace(names=["cat"]),
    }
    info = SimpleNamespace(
        file_format=SimpleNamespace(),
        features=features,
        splits=dict.fromkeys(("train", "test"), SimpleNamespace(num_examples=3)),
    )
    builder = SimpleNamespace(info=info, name="toys", data_dir=tmp_path)
    package = SimpleNamespace(builder_from_directory=lambda _: builder)
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", package)
    pretend(tmp_path / "toys", "1.0.0")
    for file_format, error, message in (
        ("array_record", None, "file_format=tfrecord"),
        ("tfrecord", tf.errors.DataLossError(None, None, "{{a}} cut [Op:B]"), ": cut."),
        ("tfrecord", AssertionError("0 examples"), ": 0 examples."),
    ):

        def as_dataset(error=error, **_):
            raise error

        info.file_format.value, builder.as_dataset = file_format, as_dataset
        with pytest.raises(ValueError, match=message):
            load("toys", data_dir=tmp_path)


@pytest.mark.skipif(INSTALLED, reason="tensorflow-datasets is installed")
def test_without_the_package_the_error_says_what_to_install(tmp_path):
    pretend(tmp_path / "toys", "1.0.0")
    with pytest.raises(ImportError, match="pip install tensorflow-datasets"):
        load("toys", data_dir=tmp_path)


def prepare(data_dir, image=None, splits=("train", "test"), extra=None):
    """Prepare a small set as a user would, with a builder of their own."""
    tfds = importlib.import_module("tensorflow_datasets")

    class Toys(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = {
                "image": image or tfds.features.Image(shape=(6, 5, 3)),
                "label": tfds.features.ClassLabel(names=["cat", "dog", "owl"]),
            }
            return self.dataset_info_from_configs(
                features=tfds.features.FeaturesDict(extra or features)
            )

        def _split_generators(self, manager):
            parts = {"train": range(280), "test": range(280, 300)}
            parts["validation"] = parts["test"]
            return {split: self._examples(parts[split]) for split in splits}

        def _examples(self, indices):
            for i in indices:
                example = {"image": IMAGES[i], "label": int(LABELS_TFDS[i])}
                yield i, {"other": i} if extra else example

        def _generate_examples(self):
            raise NotImplementedError

    try:
        Toys(data_dir=str(data_dir)).download_and_prepare()
    finally:
        tfds.core.registered._DATASET_REGISTRY.pop("toys", None)


def pairs(images, labels):
    """The image-label pairs as a set: a prepared set has an order of its own."""
    return {(a.tobytes(), int(b)) for a, b in zip(images, labels, strict=True)}


def matched(x, y, images, labels):
    return pairs(np.rint(x * 255).astype(np.uint8), y) == pairs(images, labels)


@pytest.mark.filterwarnings("default")
@needs_tfds
def test_a_prepared_set_is_read_exactly_without_network(tmp_path):
    prepare(tmp_path)
    data = load("toys", data_dir=tmp_path, verbose=False)
    assert data.x_train.shape == (280, 6, 5, 3)
    assert data.x_train.dtype == np.float32
    assert data.y_test.dtype == np.int64
    assert data.class_names == ("cat", "dog", "owl")
    assert matched(data.x_train, data.y_train, IMAGES[:280], LABELS_TFDS[:280])
    assert matched(data.x_test, data.y_test, IMAGES[280:], LABELS_TFDS[280:])
    again = load("toys", source="tfds", data_dir=tmp_path, verbose=False)
    np.testing.assert_array_equal(again.x_train, data.x_train)


@pytest.mark.filterwarnings("default")
@needs_tfds
def test_damaged_sets_and_other_formats_are_refused(tmp_path):
    for number, spoil in enumerate(
        (
            lambda shard: shard.write_bytes(shard.read_bytes()[:20]),
            lambda shard: shard.write_bytes(b""),
            lambda shard: shard.unlink(),
            lambda shard: (shard.parent / "features.json").write_text("{"),
            lambda shard: (shard.parent / "dataset_info.json").write_text("{"),
        )
    ):
        prepare(tmp_path / str(number))
        spoil(next((tmp_path / str(number)).rglob("*train*tfrecord*")))
        with pytest.raises(ValueError, match="damaged or incomplete"):
            load("toys", data_dir=tmp_path / str(number))
    info = next((tmp_path / "4").rglob("dataset_info.json"))
    prepare(tmp_path / "5")
    whole = next((tmp_path / "5").rglob("dataset_info.json")).read_text()
    info.write_text(whole.replace("tfrecord", "array_record"))
    with pytest.raises(ValueError, match="file_format=tfrecord"):
        load("toys", data_dir=tmp_path / "4")


@pytest.mark.filterwarnings("default")
@needs_tfds
def test_validation_stands_in_for_test(tmp_path):
    prepare(tmp_path, splits=("train", "validation"))
    data = load("toys", data_dir=tmp_path, verbose=False)
    assert matched(data.x_test, data.y_test, IMAGES[280:], LABELS_TFDS[280:])


@pytest.mark.filterwarnings("default")
@needs_tfds
def test_sets_that_are_no_image_classification_are_refused(tmp_path):
    import tensorflow_datasets as tfds

    for number, (settings, message) in enumerate(
        (
            ({"splits": ("train",)}, r"got the splits \['train'\]"),
            (
                {"image": tfds.features.Image(shape=(None, None, 3))},
                "expected 'image' of 8 bits with a fixed",
            ),
            ({"extra": {"other": np.int64}}, "Choose an image classification set"),
        )
    ):
        prepare(tmp_path / str(number), **settings)
        with pytest.raises(ValueError, match=message):
            load("toys", data_dir=tmp_path / str(number))


def test_a_download_is_asked_for(tmp_path, monkeypatch):
    """With a stand-in for the package, as there is no network here."""
    asked = []

    class Builder:
        info = SimpleNamespace(
            file_format=SimpleNamespace(value="tfrecord"),
            features={
                "image": SimpleNamespace(shape=(6, 5, 3), np_dtype=np.uint8),
                "label": SimpleNamespace(names=["cat", "dog"]),
            },
            splits=dict.fromkeys(("train", "test"), SimpleNamespace(num_examples=2)),
        )
        name, data_dir = "toys", str(tmp_path / "toys" / "1.0.0")

        def download_and_prepare(self):
            if "offline" in asked[-1]:
                raise ConnectionError("no route to host")
            pretend(tmp_path / "toys", "1.0.0")

        def as_dataset(self, **_):
            images, labels = np.full((2, 6, 5, 3), 51, np.uint8), np.arange(2)
            return tf.data.Dataset.from_tensor_slices({"image": images, "label": labels})

    def builder(name, *, data_dir, file_format):
        asked.append((name, data_dir, file_format))
        return Builder()

    package = SimpleNamespace(builder=builder, builder_from_directory=lambda _: Builder())
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", package)
    with pytest.raises(ValueError, match="download=True"):
        load("toys", data_dir=tmp_path)
    assert not asked
    for _ in range(2):
        data = load("toys", data_dir=tmp_path, download=True, verbose=False)
        np.testing.assert_allclose(data.x_train, np.full((2, 6, 5, 3), 0.2), rtol=1e-6)
    assert asked == [("toys", str(tmp_path), "tfrecord")]  # once: then it is there
    with pytest.raises(ValueError, match="no route to host"):
        load("offline", data_dir=tmp_path, download=True)
    with pytest.raises(ValueError, match="Leave out"):
        load("toys", source="idx", data_dir=tmp_path, download=True)


@pytest.fixture
def pictures(tmp_path):
    """Write a picture of one grey per file: the first digits of its name are its value."""

    def write(folder, count=10, names=("cat", "dog")):
        for label, name in enumerate(names):
            path = tmp_path / folder / name
            path.mkdir(parents=True)
            for i in range(count):
                grey = np.full((6, 9, 3), 20 * i + label, np.uint8)
                keras.utils.save_img(path / f"{i}.png", grey, scale=False)
        return tmp_path / folder.split("/")[0]

    return write


def test_a_folder_of_pictures_is_split_once_and_mixed(pictures, capsys):
    folder = pictures("photos")
    data = datasets.from_folder(folder, (6, 9), test_share=0.3)
    assert "14 training and 6 test images of 2 classes" in capsys.readouterr().out
    assert data.x_train.shape == (14, 6, 9, 3)
    assert data.x_train.dtype == np.float32
    values = [np.rint(x[:, 0, 0, 0] * 255).astype(int) for x in (data.x_train, data.x_test)]
    assert sorted(np.concatenate(values)) == [20 * i + k for i in range(10) for k in range(2)]
    for value, y in zip(values, (data.y_train, data.y_test), strict=True):
        np.testing.assert_array_equal(value % 2, y)  # the label of its own folder
    assert 0 < data.y_train[:7].mean() < 1  # not class by class
    again = datasets.from_folder(folder, (6, 9), test_share=0.3, verbose=False)
    assert not capsys.readouterr().out
    np.testing.assert_array_equal(again.x_test, data.x_test)


def test_a_folder_that_is_split_stays_so(pictures):
    pictures("photos/train", 4)
    folder = pictures("photos/validation", 2)
    data = datasets.from_folder(folder, (3, 3), color_mode="grayscale", verbose=False)
    assert data.x_train.shape == (8, 3, 3, 1)
    assert sorted(data.y_test) == [0, 0, 1, 1]
    (folder / "validation" / "dog").rename(folder / "validation" / "wolf")
    with pytest.raises(ValueError, match="wolf"):
        datasets.from_folder(folder, (3, 3))


def test_folders_that_hold_no_data_are_refused(pictures, tmp_path):
    with pytest.raises(ValueError, match="expected a folder"):
        datasets.from_folder(tmp_path / "none", (3, 3))
    with pytest.raises(ValueError, match="cannot be read"):
        datasets.from_folder(tmp_path, (3, 3))
    with pytest.raises(ValueError, match="two or more"):
        datasets.from_folder(pictures("alone", names=("cat",)), (3, 3))
    folder = pictures("damaged")
    (folder / "cat" / "3.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match="remove damaged files"):
        datasets.from_folder(folder, (3, 3))
    with pytest.raises(ValueError, match="test_share"):
        datasets.from_folder(folder, (3, 3), test_share=1.0)
