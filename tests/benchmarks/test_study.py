"""The study does what is left to do, and no more."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

import pytest
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


def test_images_that_nothing_was_chosen_on(monkeypatch, tmp_path):
    options = options_of(monkeypatch, tmp_path, "--held-out")
    assert (options.out.name, options.skip) == ("held_out.json", study.HELD_OUT)
    assert study.PUBLISHED[options.out] == options.skip
    options = options_of(monkeypatch, tmp_path, "--held-out", "--quick")
    assert (options.out.name, options.skip) == ("held_out-quick.json", 0)


def test_the_page_is_made_of_all_that_is_published(monkeypatch, tmp_path):
    def cells(self, of):
        part = self.path.stem
        return {"robust/plain/0": {"of": part}, "step/plain/0": {"of": part}}

    monkeypatch.setattr(study.Store, "current", cells)
    judged = study.judged_of(options_of(monkeypatch, tmp_path, "--table"))
    assert len(judged) == 2 * len(study.RUNGS)
    first, held_out = judged[:2]
    assert (first.skip, held_out.skip) == (0, study.HELD_OUT)
    assert first.cells["robust/plain/0"] == {"of": "study"}
    assert held_out.cells["robust/plain/0"] == {"of": "held_out"}
    other = ["--table", "--out", str(tmp_path / "other.json"), "--skip", "7"]
    judged = study.judged_of(options_of(monkeypatch, tmp_path, *other))
    assert [each.skip for each in judged] == [7] * len(study.RUNGS)


def test_steps_are_those_of_the_study(monkeypatch, tmp_path):
    def cells(self, of):
        held_out = self.path.stem.startswith("held_out")
        return {"robust/plain/0": {}} | ({} if held_out else {"step/plain/0": {}})

    monkeypatch.setattr(study.Store, "current", cells)
    for each in study.judged_of(options_of(monkeypatch, tmp_path, "--table")):
        assert set(each.cells) == {"robust/plain/0", "step/plain/0"}


def test_images_that_are_not_there(monkeypatch, tmp_path):
    options = options_of(monkeypatch, tmp_path, "--quick", "--skip", "2000")
    with pytest.raises(ValueError, match="--skip 2000, expected less than the 2000"):
        _ = Bank(study.RUNGS["reference"], options).test_images
