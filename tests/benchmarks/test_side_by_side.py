"""Programs call themselves for parts that run side by side."""

import subprocess
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

from networks.side_by_side import side_by_side

PROGRAM = """
import os, pathlib, sys
*options, method, seed = sys.argv[1:]
assert options == ["--keep", "this", "--train"]
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


def test_every_part_runs_once_on_one_core(folder):
    tasks = [("j sigr", "0"), ("plain", "1"), ("plain", "2")]
    side_by_side((["--train", *task] for task in tasks), jobs=2)
    made = {path.name: path.read_text() for path in folder.glob("* [0-9]")}
    assert made == {f"{method} {seed}": "1" for method, seed in tasks}


def test_a_failure_is_not_lost_and_stops_the_rest(folder):
    tasks = [("bad", "0"), ("plain", "1"), ("plain", "2")]
    with pytest.raises(subprocess.CalledProcessError, match="exit status 3"):
        side_by_side((["--train", *task] for task in tasks), jobs=1)
    # The second may have started before the first one's failure was seen.
    assert not (folder / "plain 2").exists()
