"""Finished pieces: found again, never mixed up, damage noticed, whole or not there."""

import ml_dtypes
import numpy as np
import pytest

from keras_jsigr.evaluation.store import Piece, Store, array_digest


class Work:
    """Makes a piece and counts how often it had to."""

    def __init__(self, piece=None):
        self.done = 0
        self.made = piece or Piece({"a": np.arange(6).reshape(2, 3)}, {"seconds": 0.5})

    def __call__(self):
        self.done += 1
        return self.made


def same(one, two):
    assert one.info == two.info
    assert one.arrays.keys() == two.arrays.keys()
    for name, value in one.arrays.items():
        assert value.dtype == two.arrays[name].dtype
        np.testing.assert_array_equal(value, two.arrays[name])


def test_second_time_nothing_is_done(tmp_path):
    work, settings = Work(), {"epsilon": 0.1, "steps": [1, 2]}
    first = Store(tmp_path, {"model": "a"}).piece("suite", settings, work)
    second = Store(tmp_path, {"model": "a"}).piece("suite", settings, work)
    assert work.done == 1
    same(first, second)


@pytest.mark.parametrize(
    "dtype", ["bool", "int64", "float16", "float32", "float64", ml_dtypes.bfloat16]
)
def test_types_survive(tmp_path, dtype):
    values = np.linspace(-2, 2, 12).reshape(3, 4).astype(dtype)
    info = {"float": 1 / 3, "inf": float("inf"), "list": (1, 2), "none": None}
    work = Work(Piece({"x": values, "empty": values[:0]}, info))
    first = Store(tmp_path, {}).piece("x", {}, work)
    second = Store(tmp_path, {}).piece("x", {}, work)
    assert work.done == 1
    assert second.info["list"] == [1, 2]
    same(first, second)
    np.testing.assert_array_equal(second.arrays["x"], values)


def test_memory_and_disk_agree(tmp_path):
    work = Work(Piece({}, {"range": (0, 1), "n": np.int64(3)}))
    same(Store(None, {}).piece("x", {}, work), Store(tmp_path, {}).piece("x", {}, work))


@pytest.mark.parametrize(
    ("identity", "kind", "settings"),
    [
        ({"model": "b"}, "suite", {"epsilon": 0.1}),
        ({"model": "a"}, "curve", {"epsilon": 0.1}),
        ({"model": "a"}, "suite", {"epsilon": np.nextafter(0.1, 1.0)}),
        ({"model": "a"}, "suite", {"epsilon": 0.1, "steps": 3}),
    ],
)
def test_anything_else_is_another_piece(tmp_path, identity, kind, settings):
    work = Work()
    Store(tmp_path, {"model": "a"}).piece("suite", {"epsilon": 0.1}, work)
    Store(tmp_path, identity).piece(kind, settings, work)
    assert work.done == 2


def _cut(path):
    path.write_bytes(path.read_bytes()[:-20])


def _flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(bytes(data))


def _foreign(path):
    np.savez(path, header=np.zeros(3))


def _pickle(path):
    with open(path, "wb") as file:
        np.savez(file, header=np.array([{"a": 1}], dtype=object))


@pytest.mark.parametrize(
    "damage", [_cut, _flip, _foreign, _pickle, lambda p: p.write_bytes(b"")]
)
def test_damage_is_noticed_and_repaired(tmp_path, damage):
    work = Work()
    Store(tmp_path, {}).piece("x", {}, work)
    (path,) = tmp_path.glob("*/x-*.npz")
    damage(path)
    with pytest.warns(RuntimeWarning, match="damaged.*computed again"):
        again = Store(tmp_path, {}).piece("x", {}, work)
    assert work.done == 2
    same(again, work.made)
    same(Store(tmp_path, {}).piece("x", {}, work), work.made)
    assert work.done == 2


def test_a_piece_of_other_settings_under_this_name_is_not_taken(tmp_path):
    work = Work()
    Store(tmp_path, {}).piece("x", {"epsilon": 0.1}, work)
    Store(tmp_path, {}).piece("x", {"epsilon": 0.2}, work)
    one, two = sorted(tmp_path.glob("*/x-*.npz"))
    one.write_bytes(two.read_bytes())
    with pytest.warns(RuntimeWarning, match="damaged"):
        both = [
            Store(tmp_path, {}).piece("x", {"epsilon": e}, work) for e in (0.1, 0.2)
        ]
    assert len(both) == 2
    assert work.done == 3


def test_a_crash_leaves_nothing(tmp_path):
    def crash():
        raise RuntimeError("boom")

    store = Store(tmp_path, {})
    with pytest.raises(RuntimeError, match="boom"):
        store.piece("x", {}, crash)
    assert [p.name for p in tmp_path.glob("*/*")] == ["about.json"]
    work = Work()
    store.piece("x", {}, work)
    assert work.done == 1


def test_a_full_disk_does_not_stop_the_work(tmp_path, monkeypatch):
    import keras_jsigr.evaluation.store as module

    def full(*args):
        raise OSError("No space left on device")

    store = Store(tmp_path, {})
    monkeypatch.setattr(module, "write_cache_file", full)
    work = Work()
    with pytest.warns(RuntimeWarning, match="No space left"):
        same(store.piece("x", {}, work), work.made)


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="cannot be written"):
        Store(tmp_path / "file", {})


def test_digests():
    a = np.arange(6.0)
    digests = {
        array_digest(v)
        for v in (a, a + 1, a.reshape(2, 3), a.astype("float32"), a[::2], a > 2)
    }
    assert len(digests) == 6
    assert array_digest(a.reshape(2, 3).T.T) == array_digest(a.reshape(2, 3))
