"""Results of the benchmarks are kept as long as they are of the same."""

import subprocess
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

from judges.store import Store


@pytest.fixture
def path(tmp_path):
    return tmp_path / "results.json"


def test_cells_outlive_the_program(path):
    Store(path, {"images": 8}).put("robust/plain/0", {"clean": 90.0})
    again = Store(path, {"images": 8})
    assert again.cells == {"robust/plain/0": {"clean": 90.0}}
    assert again.has("robust/plain/0")
    assert not again.has("robust/plain/1")


def test_programs_share_a_file(path):
    first, second = Store(path, {}), Store(path, {})
    first.put("robust/plain/0", {"clean": 90.0})
    second.put("robust/plain/1", {"clean": 91.0})
    assert second.has("robust/plain/0")
    assert set(Store(path, {}).cells) == {"robust/plain/0", "robust/plain/1"}


WRITER = """
import sys
sys.path.append(sys.argv[1])
from pathlib import Path
from judges.store import Store
store = Store(Path(sys.argv[2]), {})
for i in range(20):
    store.put(f"{sys.argv[3]}/{i}", {"clean": 90.0})
"""


@pytest.mark.slow
def test_programs_that_write_at_once_lose_nothing(path):
    folder = Path(__file__).parents[2] / "benchmarks"
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(folder), str(path), name])
        for name in ("first", "second")
    ]
    assert [writer.wait() for writer in writers] == [0, 0]
    assert len(Store(path, {}).cells) == 40


def test_cells_of_other_settings_stay(path):
    Store(path, {"images": 8}).put("robust/plain/0", {"clean": 90.0})
    before = path.read_bytes()
    with pytest.raises(ValueError, match="figures of other settings"):
        Store(path, {"images": 16})
    assert path.read_bytes() == before


def test_tuples_come_back_as_lists_and_are_the_same(path):
    store = Store(path, {"sizes": (2, 4)})
    store.put("time/a", {"ratio": 2.0}, of=("a", 1))
    assert store.has("time/a", ("a", 1))
    again = Store(path, {"sizes": (2, 4)})
    assert again.has("time/a", ("a", 1))
    assert again.has("time/a", ["a", 1])
    assert not again.has("time/a", ("a", 2))


def test_an_error_is_tried_again(path):
    store = Store(path, {})
    store.put("attack", {"error": "out of memory"})
    assert not store.has("attack")


def test_a_cell_is_stale_when_its_network_is_another(path):
    Store(path, {}).put("robust/plain/0", {"clean": 90.0}, of=["plain-0-1f2e"])
    again = Store(path, {})
    assert again.has("robust/plain/0", ["plain-0-1f2e"])
    assert not again.has("robust/plain/0", ["plain-0-aaaa"])
    assert not again.has("robust/plain/0")


def test_only_current_cells_are_shown(path):
    store = Store(path, {})
    for name in ("plain/0", "plain/1", "gone/0"):
        store.put(name, {"clean": 90.0}, of=[name])
    networks = {"plain/0": ["plain/0"], "plain/1": ["trained anew"]}
    assert list(store.current(networks.get)) == ["plain/0"]
    # What is stale stays on disk until it is measured anew.
    assert set(Store(path, {}).cells) == {"plain/0", "plain/1", "gone/0"}


def test_what_is_there_is_not_measured_again(path):
    store, calls = Store(path, {}), []

    def figures():
        calls.append(1)
        return {"clean": 90.0 + len(calls)}

    for networks in (["a"], ["a"], ["b"]):
        store.measure("plain/0", figures, of=networks)
    assert store.cells == {"plain/0": {"of": ["b"], "clean": 92.0}}
