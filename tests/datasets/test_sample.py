"""The embedded sample against its manifest and against the official files."""

import hashlib
import importlib.util
import json
from importlib import resources
from pathlib import Path

import numpy as np
import pytest

from keras_jsigr.datasets import sample
from keras_jsigr.datasets.idx import FILES, debian_folder, find_idx_files, read_idx

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
    return sample.load_sample()


def splits(data):
    return {
        "train": (data.x_train, data.y_train),
        "test": (data.x_test, data.y_test),
    }


def as_bytes(x):
    return np.rint(x * 255).astype(np.uint8)


@pytest.mark.parametrize(("split", "per_class"), [("train", 1200), ("test", 200)])
def test_stratified_typed_and_in_range(data, split, per_class):
    x, y = splits(data)[split]
    assert x.shape == (10 * per_class, 28, 28, 1)
    assert x.dtype == np.float32
    assert y.dtype == np.int64
    assert (x.min(), x.max()) == (0.0, 1.0)
    np.testing.assert_array_equal(np.bincount(y), np.full(10, per_class))


@pytest.mark.parametrize("split", ["train", "test"])
def test_every_thousand_is_mixed(data, split):
    _, y = splits(data)[split]
    for block in y.reshape(-1, 1000):
        assert np.bincount(block, minlength=10).min() >= 60


@pytest.mark.parametrize("split", ["train", "test"])
def test_pixels_and_labels_have_the_known_checksums(data, split):
    x, _ = splits(data)[split]
    assert hashlib.sha256(as_bytes(x).tobytes()).hexdigest() == PIXELS[split]
    stored = (FOLDER / f"{split}-labels.npy").read_bytes()
    assert hashlib.sha256(stored).hexdigest() == LABELS[split]


@pytest.mark.skipif(OFFICIAL is None, reason="Debian's dataset-fashion-mnist is absent")
@pytest.mark.parametrize("split", ["train", "test"])
def test_equal_to_the_official_files(data, split):
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


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("train-00.png", lambda content: content[:5000]),
        ("test-01.png", lambda content: b"not an image"),
        ("test-labels.npy", lambda content: content[:-1] + b"\x01"),
    ],
)
def test_damage_is_noticed(monkeypatch, name, damage):
    read = sample._read

    def damaged(folder, wanted):
        content = read(folder, wanted)
        return damage(content) if wanted == name else content

    monkeypatch.setattr(sample, "_read", damaged)
    with pytest.raises(ValueError, match="reinstall keras-jsigr"):
        sample.load_sample()


def test_a_swapped_mosaic_is_noticed(monkeypatch):
    read = sample._read
    monkeypatch.setattr(
        sample,
        "_read",
        lambda folder, name: read(
            folder, "test-00.png" if name == "test-01.png" else name
        ),
    )
    with pytest.raises(ValueError, match="SHA-256"):
        sample.load_sample()


SCRIPT = (
    Path(__file__).resolve().parents[2] / "scripts" / "make_fashion_mnist_sample.py"
)


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
