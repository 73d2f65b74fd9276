"""Programs that train side by side call themselves once for every network."""

import subprocess
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

from networks.side_by_side import side_by_side

PROGRAM = """
import os, pathlib, sys
*options, method, seed = sys.argv[1:]
assert options == ["--keep", "this", "--rung", "tiny", "--train"]
if method == "bad":
    raise SystemExit(3)
threads = os.environ["TF_NUM_INTRAOP_THREADS"]
pathlib.Path(__file__).with_name(f"{method} {seed}").write_text(threads)
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    monkeypatch.setattr(sys, "argv", [str(program), "--keep", "this"])
    return tmp_path


def in_folder(folder):
    return lambda method, seed: folder / f"{method} {seed}"


def test_what_is_there_stays(folder):
    (folder / "plain 1").write_text("trained before")
    side_by_side([("plain", 1), ("plain", 2)], in_folder(folder), jobs=1, rung="tiny")
    assert (folder / "plain 1").read_text() == "trained before"
    assert (folder / "plain 2").read_text() == "1"


def test_every_task_runs_once_on_one_core(folder):
    tasks = [("j sigr", 0), ("plain", 1), ("plain", 2)]
    side_by_side(tasks, in_folder(folder), jobs=2, rung="tiny")
    made = {path.name: path.read_text() for path in folder.glob("* [0-9]")}
    assert made == {f"{method} {seed}": "1" for method, seed in tasks}


def test_a_failure_is_not_lost_and_stops_the_rest(folder):
    tasks = [("bad", 0), ("plain", 1), ("plain", 2)]
    with pytest.raises(subprocess.CalledProcessError, match="exit status 3"):
        side_by_side(tasks, in_folder(folder), jobs=1, rung="tiny")
    # The second may have started before the first one's failure was seen.
    assert not (folder / "plain 2").exists()
