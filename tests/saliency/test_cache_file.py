import json

import numpy as np
import pytest

import keras_jsigr as kj
from keras_jsigr.saliency.cache_file import read_cache_file, write_cache_file


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "new" / "cache.npz"
    write_cache_file(path, {"grid": [5, 5]}, {"a": np.arange(1000)})
    return path


def test_round_trip_leaves_one_file(path):
    header, arrays = read_cache_file(path)
    assert header == {"grid": [5, 5]}
    np.testing.assert_array_equal(arrays["a"], np.arange(1000))
    assert [p.name for p in path.parent.iterdir()] == ["cache.npz"]


def test_a_failing_write_leaves_the_old_file(path, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez", fail)
    with pytest.raises(OSError, match="disk full"):
        write_cache_file(path, {}, {"a": np.zeros(1)})
    assert [p.name for p in path.parent.iterdir()] == ["cache.npz"]
    assert read_cache_file(path)[0] == {"grid": [5, 5]}


@pytest.mark.parametrize("keep", [0, 10, 500, 4000, -1])
def test_truncated(path, keep):
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match="damaged or foreign"):
        read_cache_file(path)


def test_any_flipped_byte_is_noticed_or_harmless(path):
    whole = path.read_bytes()
    noticed = 0
    for at in range(0, len(whole), 97):
        spoiled = bytearray(whole)
        spoiled[at] ^= 0x5A
        path.write_bytes(bytes(spoiled))
        try:
            header, arrays = read_cache_file(path)
        except ValueError:
            noticed += 1
        else:  # A byte of the archive that carries nothing, such as a date.
            assert header == {"grid": [5, 5]}
            np.testing.assert_array_equal(arrays["a"], np.arange(1000))
    assert noticed > 70


def rewrite(path, change):
    with np.load(path) as file:
        arrays = dict(file)
    header = json.loads(arrays.pop("header").tobytes())
    change(header, arrays)
    text = np.frombuffer(json.dumps(header).encode(), np.uint8)
    np.savez(path, header=text, **arrays)


def test_checksum_covers_header_and_arrays(path):
    rewrite(path, lambda header, arrays: header.update(grid=[4, 4]))
    with pytest.raises(ValueError, match="wrong checksum"):
        read_cache_file(path)
    write_cache_file(path, {}, {"a": np.arange(3)})
    rewrite(path, lambda header, arrays: arrays.update(a=np.arange(4)))
    with pytest.raises(ValueError, match="wrong checksum"):
        read_cache_file(path)


def test_newer_format_foreign_pickled_and_missing(path):
    rewrite(path, lambda header, arrays: header.update(format=2))
    with pytest.raises(ValueError, match="in format 2, expected 1"):
        read_cache_file(path)
    np.savez(path, a=np.zeros(2))
    with pytest.raises(ValueError, match="damaged or foreign"):
        read_cache_file(path)
    np.savez(path, header=np.array([{"a": 1}], dtype=object))
    with pytest.raises(ValueError, match="damaged or foreign"):
        read_cache_file(path)
    np.save(path.with_suffix(".npy"), np.zeros(2))
    with pytest.raises(ValueError, match="damaged or foreign"):
        read_cache_file(path.with_suffix(".npy"))
    with pytest.raises(FileNotFoundError):
        read_cache_file(path.with_name("none.npz"))


def test_a_tilde_is_the_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    x = np.random.default_rng(0).uniform(size=(4, 3)).astype("float32")
    built = kj.PerturbationCache.build(lambda x: x, x, path="~/a.npz", verbose=0)
    built.save("~/b.npz")
    assert {path.name for path in tmp_path.iterdir()} == {"a.npz", "b.npz"}
    assert kj.PerturbationCache.load("~/b.npz").size == 4
