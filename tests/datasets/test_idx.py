"""IDX files: what is read, and what is refused and how."""

import gzip
import struct

import numpy as np
import pytest

from keras_jsigr import datasets
from keras_jsigr.datasets.idx import (
    debian_folder,
    find_idx_files,
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


@pytest.mark.parametrize("compress", [False, True])
def test_a_folder_is_read_exactly(tmp_path, arrays, compress, capsys):
    write(tmp_path, arrays, compress)
    data = datasets.load("toys", source="idx", data_dir=tmp_path)
    expected = arrays["train-images-idx3-ubyte"][..., None] / np.float32(255)
    np.testing.assert_array_equal(data.x_train, expected)
    np.testing.assert_array_equal(data.y_test, arrays["t10k-labels-idx1-ubyte"])
    assert data.x_train.dtype == np.float32
    assert data.y_train.dtype == np.int64
    assert data.class_names == ("0", "1", "2")
    assert capsys.readouterr().out == (
        f"toys: 12 training and 6 test images from IDX files in {tmp_path}\n"
    )


def test_auto_takes_a_folder_before_the_sample(tmp_path, arrays):
    write(tmp_path, arrays)
    data = datasets.load("fashion_mnist", data_dir=str(tmp_path), verbose=False)
    assert len(data.x_train) == 12
    assert data.class_names[8] == "Bag"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "starts with nothing"),
        (b"\x89PNG....", "starts with 89504e47"),
        (idx_bytes(np.zeros((2, 2), np.uint8), kind=0x0D), "expected 000008"),
        (bytes((0, 0, 8, 0)), "0 dimensions"),
        (bytes((0, 0, 8, 200)) + bytes(900), "200 dimensions"),
        (bytes((0, 0, 8, 3, 0, 0, 0, 9)), "in 4 bytes"),
        (idx_bytes(np.zeros((4, 5), np.uint8))[:-1], "got 19 bytes.*expected 20"),
        (idx_bytes(np.zeros((4, 5), np.uint8)) + b"x", "got 21 bytes.*expected 20"),
        (bytes((0, 0, 8, 2)) + b"\xff" * 8 + b"x", "got 1 bytes"),
    ],
)
@pytest.mark.parametrize("compress", [False, True])
def test_bad_content_is_refused(tmp_path, content, message, compress):
    path = tmp_path / ("bad.gz" if compress else "bad")
    path.write_bytes(gzip.compress(content) if compress else content)
    with pytest.raises(ValueError, match=message) as caught:
        read_idx(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("damage", ["cut", "flipped", "not gzip"])
def test_damaged_gzip_is_refused(tmp_path, damage):
    random = np.random.default_rng(1).integers(0, 256, (50, 50), np.uint8)
    content = bytearray(gzip.compress(idx_bytes(random)))
    if damage == "cut":
        del content[-500:]
    elif damage == "flipped":
        content[len(content) // 2] ^= 0xFF
    else:
        content = bytearray(idx_bytes(random))
    path = tmp_path / "images.gz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="gzip"):
        read_idx(path)


def test_a_missing_file_is_named(tmp_path, arrays):
    write(tmp_path, arrays)
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    assert find_idx_files(tmp_path) is None
    with pytest.raises(ValueError, match="t10k-labels-idx1-ubyte"):
        load_idx("toys", tmp_path)


def test_swapped_images_and_labels_are_refused(tmp_path, arrays):
    arrays["train-labels-idx1-ubyte"] = arrays["train-images-idx3-ubyte"]
    write(tmp_path, arrays)
    with pytest.raises(ValueError, match="expected 1 dimensions"):
        load_idx("toys", tmp_path)


def test_labels_of_another_split_are_refused(tmp_path, arrays):
    arrays["train-labels-idx1-ubyte"] = arrays["t10k-labels-idx1-ubyte"]
    write(tmp_path, arrays)
    with pytest.raises(ValueError, match="same split"):
        load_idx("toys", tmp_path)


def test_splits_of_two_shapes_are_refused(tmp_path, arrays):
    arrays["t10k-images-idx3-ubyte"] = np.zeros((6, 4, 5), np.uint8)
    write(tmp_path, arrays)
    with pytest.raises(ValueError, match="expected one shape"):
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
