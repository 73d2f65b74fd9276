"""Sets of TensorFlow Datasets, prepared here from made-up images without network."""

import importlib.util
import json
import socket

import numpy as np
import pytest

from keras_jsigr.datasets import load, tfds
from keras_jsigr.datasets.tfds import default_data_dir, find_prepared

INSTALLED = importlib.util.find_spec("tensorflow_datasets") is not None
needs_tfds = pytest.mark.skipif(not INSTALLED, reason="needs tensorflow-datasets")
# Warnings of tensorflow-datasets and what it imports are not ours to repair.
pytestmark = pytest.mark.filterwarnings("default")

RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.integers(0, 256, (300, 6, 5, 3), np.uint8)
LABELS = np.arange(300) % 3


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
    asked, sample = [], load(verbose=False)
    monkeypatch.setattr(tfds, "load_prepared", lambda *a: asked.append(a) or sample)
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
                example = {"image": IMAGES[i], "label": int(LABELS[i])}
                yield i, {"other": i} if extra else example

        def _generate_examples(self):
            raise NotImplementedError

    try:
        Toys(data_dir=str(data_dir)).download_and_prepare()
    finally:
        tfds.core.registered._DATASET_REGISTRY.pop("toys", None)


@pytest.fixture
def _no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def pairs(images, labels):
    """The image-label pairs as a set: a prepared set has an order of its own."""
    return {(a.tobytes(), int(b)) for a, b in zip(images, labels, strict=True)}


def matched(x, y, images, labels):
    return pairs(np.rint(x * 255).astype(np.uint8), y) == pairs(images, labels)


@needs_tfds
@pytest.mark.usefixtures("_no_network")
@pytest.mark.parametrize("source", ["auto", "tfds"])
def test_a_prepared_set_is_read_exactly_without_network(tmp_path, source):
    prepare(tmp_path)
    data = load("toys", source=source, data_dir=tmp_path, verbose=False)
    assert data.x_train.shape == (280, 6, 5, 3)
    assert data.x_train.dtype == np.float32
    assert data.y_test.dtype == np.int64
    assert data.class_names == ("cat", "dog", "owl")
    assert matched(data.x_train, data.y_train, IMAGES[:280], LABELS[:280])
    assert matched(data.x_test, data.y_test, IMAGES[280:], LABELS[280:])
    again = load("toys", source=source, data_dir=tmp_path, verbose=False)
    np.testing.assert_array_equal(again.x_train, data.x_train)


@needs_tfds
def test_validation_stands_in_for_test(tmp_path):
    prepare(tmp_path, splits=("train", "validation"))
    data = load("toys", data_dir=tmp_path, verbose=False)
    assert matched(data.x_test, data.y_test, IMAGES[280:], LABELS[280:])


@needs_tfds
def test_a_set_without_test_images_is_refused(tmp_path):
    prepare(tmp_path, splits=("train",))
    with pytest.raises(ValueError, match=r"got the splits \['train'\]"):
        load("toys", data_dir=tmp_path)


@needs_tfds
def test_images_of_no_fixed_shape_are_refused(tmp_path):
    import tensorflow_datasets as tfds

    prepare(tmp_path, image=tfds.features.Image(shape=(None, None, 3)))
    with pytest.raises(ValueError, match="expected 'image' of 8 bits with a fixed"):
        load("toys", data_dir=tmp_path)


@needs_tfds
def test_a_set_that_is_no_image_classification_is_refused(tmp_path):
    prepare(tmp_path, extra={"other": np.int64})
    with pytest.raises(ValueError, match="Choose an image classification set"):
        load("toys", data_dir=tmp_path)
