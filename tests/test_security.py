"""Files of strangers: every loader returns what was written, or says that it cannot."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import keras_jsigr as kj
from keras_jsigr.datasets import read_idx
from keras_jsigr.evaluation import Rate, Report
from keras_jsigr.evaluation.records import AttackRecord

pytestmark = pytest.mark.slow
FUZZ = settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
DEEP = b"[" * 100_000


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """One valid file of every kind."""
    folder = tmp_path_factory.mktemp("files")
    net = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Flatten(), keras.layers.Dense(3)])
    x = np.random.default_rng(0).uniform(size=(5, 4, 4, 1)).astype("float32")
    kj.PerturbationCache.build(net, x, grid=2, verbose=0).save(folder / "cache.npz")
    config = kj.JSIGRConfig(selection="none", check_gradients=False)
    card = kj.harden(net, recipe=config, verbose=0).export(folder / "1", verbose=0)
    attack = AttackRecord(
        name="pgd",
        access="white box",
        config={"steps": 20},
        attacked=90,
        broken=30,
        accuracy=Rate(60, 100),
        seconds=1.0,
    )
    report = Report(
        title="A net", chance=0.1, clean=Rate(90, 100), robust=Rate(60, 100), attacks=[attack]
    )
    report.save(folder / "report.json")
    idx = b"\x00\x00\x08\x02" + (3).to_bytes(4, "big") + (2).to_bytes(4, "big") + b"abcdef"
    return {
        "cache": (folder / "cache.npz").read_bytes(),
        "card": card.read_bytes(),
        "report": (folder / "report.json").read_bytes(),
        "idx": idx,
        "idx.gz": gzip.compress(idx),
    }


LOADERS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "cache": ("cache.npz", kj.PerturbationCache.load),
    "card": ("model_card.json", kj.serving.read_model_card),
    "report": ("report.json", Report.load),
    "idx": ("images-idx2-ubyte", read_idx),
    "idx.gz": ("images-idx2-ubyte.gz", read_idx),
}


def load(kind: str, content: bytes, folder: Path) -> Any:
    """Return what the loader makes of these bytes; None if it refuses them in words."""
    name, loader = LOADERS[kind]
    (folder / name).write_bytes(content)
    try:
        return loader(folder / name)
    except ValueError as error:
        told = str(error)
    assert name in told
    return None


@pytest.mark.parametrize("kind", LOADERS)
def test_valid_files_are_read(kind: str, files: dict[str, bytes], tmp_path: Path) -> None:
    assert load(kind, files[kind], tmp_path) is not None


@pytest.mark.parametrize("kind", LOADERS)
@FUZZ
@given(content=st.binary(max_size=400))
@example(content=b"")
@example(content=DEEP)
@example(content=b"\x80\x04\x95\x1d\x00\x00\x00\x00\x00\x00\x00\x8c\x02os\x8c\x06system\x93.")
@example(content=b'{"format": 1e999}')
@example(content=b'{"format": ' + b"9" * 10_000 + b"}")
def test_any_bytes(kind: str, content: bytes, tmp_path: Path) -> None:
    found = load(kind, content, tmp_path)
    assert found is None or (kind == "idx" and isinstance(found, np.ndarray))


@pytest.mark.parametrize("kind", LOADERS)
@FUZZ
@given(data=st.data())
def test_changed_bytes(kind: str, files: dict[str, bytes], tmp_path: Path, data: Any) -> None:
    """A few bytes of a valid file are others, or missing."""
    content = bytearray(files[kind])
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] = data.draw(st.integers(0, 255))
    whole = data.draw(st.integers(0, 3))
    cut = len(content) if whole else data.draw(st.integers(0, len(content)))
    found = load(kind, bytes(content[:cut]), tmp_path)
    if kind == "cache" and found is not None:  # never wrong numbers
        wanted = load(kind, files[kind], tmp_path)
        np.testing.assert_array_equal(found.codes, wanted.codes)
        np.testing.assert_array_equal(found.keys, wanted.keys)
    if kind.startswith("idx") and found is not None:
        assert found.dtype == np.uint8


@pytest.mark.parametrize("kind", ["card", "report"])
@FUZZ
@given(data=st.data())
def test_changed_documents(kind: str, files: dict[str, bytes], tmp_path: Path, data: Any) -> None:
    """One part of a valid document is any other JSON, or missing."""
    document = json.loads(files[kind])
    place = document
    while True:
        key = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else [0]))
        inner = place[key]
        if isinstance(inner, dict | list) and inner and data.draw(st.booleans()):
            place = inner
            continue
        break
    if data.draw(st.booleans()):
        place[key] = data.draw(JSON)
    else:
        del place[key]
    found = load(kind, json.dumps(document).encode(), tmp_path)
    if kind == "report" and found is not None:
        assert isinstance(found, Report)
        found.summary()


def test_checksums_do_not_leave_the_folder(tmp_path: Path) -> None:
    """A card that names files elsewhere is one whose files are missing."""
    net = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    config = kj.JSIGRConfig(selection="none", check_gradients=False)
    card = kj.harden(net, recipe=config, verbose=0).export(tmp_path / "1", verbose=0)
    document = json.loads(card.read_text())
    (tmp_path / "secret").write_text("x")
    document["files"]["../secret"] = "0" * 64
    card.write_text(json.dumps(document))
    with pytest.raises(ValueError, match=r"\.\./secret \(missing\)"):
        kj.serving.verify(tmp_path / "1")
