"""The study does what is left to do, and no more."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

import study
from baselines.bank import Bank
from baselines.rungs import RUNGS


def options_of(monkeypatch, tmp_path, *more):
    call = ["study.py", "--methods", "plain", "--seeds", "1", *more]
    monkeypatch.setattr(sys, "argv", [*call, "--cache", str(tmp_path)])
    return study.parse_options()


def test_what_is_measured_is_not_trained_again(monkeypatch, tmp_path):
    done = []
    monkeypatch.setattr(Bank, "fill", lambda self, members: done.append(members))
    monkeypatch.setattr(
        Bank, "side_by_side", lambda self, option, members: done.append(members)
    )
    parts = ["--parts", "robust", "pgd", "transfer", "maps"]
    options = options_of(monkeypatch, tmp_path, *parts)
    study.run(Bank(RUNGS["reference"], options), options)
    assert done == []  # the published figures
    again = ["--out", str(tmp_path / "again.json")]
    options = options_of(monkeypatch, tmp_path, *parts, *again)
    study.run(Bank(RUNGS["reference"], options), options)
    trained, measured = done
    assert measured == [("plain", 0)]
    assert trained[:2] == [("plain", study.TEACHER_SEED), ("plain", 0)]
    assert len(trained) == 2 + len(study.SURROGATES)


def test_figures_in_a_file_of_their_own_are_not_published(monkeypatch, tmp_path):
    def never(*args):
        raise AssertionError("the page was written")

    monkeypatch.setattr(study.page, "write", never)
    again = ["--out", str(tmp_path / "again.json"), "--table"]
    options_of(monkeypatch, tmp_path, *again)
    study.main()
