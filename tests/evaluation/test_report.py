"""The report as a file: exact, strict, whole, and clear about what it cannot read."""

import dataclasses
import json
import math
import os
from typing import Any

import numpy as np
import pytest

from keras_jsigr.core.files import from_json, to_json
from keras_jsigr.evaluation import report as report_module
from keras_jsigr.evaluation.records import (
    AttackRecord,
    ClassRecord,
    CurvePoint,
    ExampleRecord,
    Finding,
    LinearizedRecord,
    Rate,
    TransferRecord,
)
from keras_jsigr.evaluation.render.tables import mismatches
from keras_jsigr.evaluation.report import SCHEMA, Comparison, Report, compare


def make_report(**changes):
    """Every kind of record, awkward values among them."""
    half = Rate(50, 100)
    values = dict(
        title="Größe \N{GREEK SMALL LETTER EPSILON} <b>&\"'\u2028",
        model={"name": "net", "parameters": 15, "hardened": True, "settings": None},
        threat_model={"norm": "linf", "epsilon": 8 / 255, "input_range": (0.0, 1.0)},
        data={"images": np.int64(100), "fingerprint": "ab" * 32},
        clean=Rate(90, 100),
        robust=half,
        attacks=[
            AttackRecord(
                name="FAB",
                access="white box",
                config={"epsilon": math.inf, "range": (0, 1), "x": np.float32(0.1)},
                attacked=90,
                broken=40,
                accuracy=half,
                seconds=0.1,
                error="ValueError: no",
            )
        ],
        classes=[ClassRecord(name="Bag", clean=Rate(9, 10), robust=Rate(0, 10))],
        curve=[CurvePoint(epsilon=0, accuracy=half)],
        curve_attack={"name": "PGD", "config": {"steps": 20, "step_size": None}},
        chance=0.1,
        transfer=[
            TransferRecord(source="a", target="b", attack="MI", epsilon=1 / 3, accuracy=half)
        ],
        linearized=LinearizedRecord(
            norm="linf",
            quantiles=[(0.1, 1e-300), (0.9, math.inf)],
            margin=3,
            gradient=0,
        ),
        findings=[
            Finding(rule="r", title="t", status="suspect", says="s", figures={"a": math.nan})
        ],
        examples=[
            ExampleRecord(
                index=3,
                label="0",
                predicted="0",
                adversarial="1",
                attack="FAB",
                distance=0.03,
                pictures={"image": "aGk="},
            )
        ],
        settings={"epsilons": [0.1, 0.2], "seed": 0},
        versions={"python": "3.11"},
        seconds={"total": 1},
        errors=["curve: ValueError"],
    )
    return Report(**{**values, **changes})


def test_round_trip_is_exact(tmp_path):
    report = make_report(findings=[])
    path = tmp_path / "new" / "report.json"
    report.save(path)
    loaded = Report.load(path)
    assert loaded == report
    assert loaded.threat_model["epsilon"] == 8 / 255
    assert loaded.linearized.quantiles == [(0.1, 1e-300), (0.9, math.inf)]
    assert loaded.attacks[0].config["epsilon"] == math.inf
    again = tmp_path / "again.json"
    loaded.save(again)
    assert again.read_bytes() == path.read_bytes()


def test_the_file_holds_every_field():
    names = {field.name for field in dataclasses.fields(Report)}
    assert set(make_report().to_document()) == {"schema", *names}


def test_nan_survives_in_strict_json(tmp_path):
    report = make_report()
    report.save(tmp_path / "a.json")
    text = (tmp_path / "a.json").read_text()

    def refuse(name):
        raise AssertionError(name)

    json.loads(text, parse_constant=refuse)
    assert math.isnan(Report.load(tmp_path / "a.json").findings[0].figures["a"])


def test_values_are_plain_from_the_start():
    report = make_report()
    assert type(report.data["images"]) is int
    assert report.threat_model["input_range"] == [0.0, 1.0]
    assert type(report.curve[0].epsilon) is float
    assert type(report.seconds["total"]) is float


def test_what_does_not_fit_is_refused_at_once():
    with pytest.raises(TypeError, match=r"settings\.model.*object"):
        make_report(settings={"model": object()})
    with pytest.raises(TypeError, match="string keys"):
        make_report(settings={3: 1})
    with pytest.raises(ValueError, match=r"`clean` is damaged"):
        make_report(clean="90 %")


DAMAGES = [
    (lambda d: {**d, "schema": SCHEMA + 1}, "got schema 2, expected 1.*Update"),
    (lambda d: {k: v for k, v in d.items() if k != "schema"}, "got schema None"),
    (lambda d: [d], "no report"),
    (
        lambda d: {k: v for k, v in d.items() if k != "clean"},
        r"\['clean'\] missing",
    ),
    (lambda d: {**d, "colour": 1}, r"\['colour'\] missing or unknown"),
    (lambda d: {**d, "clean": {"correct": 5, "total": 4}}, "No rate"),
    (lambda d: {**d, "chance": "0.1"}, r"chance` is damaged"),
    (lambda d: {**d, "chance": True}, r"chance` is damaged"),
    (lambda d: {**d, "chance": {"$float": [1]}}, r"`.*chance` is damaged: got the"),
    (lambda d: {**d, "chance": {"$float": "0.5"}}, "expected one of"),
    (lambda d: {**d, "model": {"depth": {"$float": None}}}, "expected one of"),
    (lambda d: {**d, "chance": 10**400}, "an integer of 1329 bits"),
    (lambda d: {**d, "clean": {"correct": 1, "total": 10**400}}, "clean.total"),
    (lambda d: {**d, "model": {"depth": [-(10**400)]}}, "an integer of 1329 bits"),
    (lambda d: {**d, "errors": [1]}, r"errors\[0\]` is damaged"),
    (lambda d: {**d, "findings": [{**d["findings"][0], "status": "?"}]}, "status"),
]


def test_foreign_and_damaged_files(tmp_path):
    path = tmp_path / "a.json"
    for damage, message in DAMAGES:
        path.write_text(json.dumps(damage(make_report().to_document())))
        with pytest.raises(ValueError, match=message):
            Report.load(path)
    for text in (b"", b"{", b"\xff\xfe", b'{"schema": NaN}', b"[" * 9999):
        path.write_bytes(text)
        with pytest.raises(ValueError, match=r"is no JSON file"):
            Report.load(path)
    with pytest.raises(FileNotFoundError):
        Report.load(tmp_path / "b.json")


def test_files_of_before_some_attributes(tmp_path):
    report = make_report()
    document = report.to_document()
    for record in document["transfer"]:
        del record["union"], record["fingerprint"]
    path = tmp_path / "a.json"
    path.write_text(json.dumps(document))
    assert Report.load(path) == report
    assert report.transfer


def test_suffixes(tmp_path):
    with pytest.raises(ValueError, match=r"got suffix '.pdf', expected one of"):
        make_report().save(tmp_path / "a.pdf")
    assert not list(tmp_path.iterdir())


def test_the_suffix_says_the_page(tmp_path, monkeypatch):
    seen = []

    def page(reports):
        seen.append(list(reports))
        return b"<html>"

    monkeypatch.setitem(report_module._PAGES, ".html", page)
    one, two = make_report(), make_report(title="other")
    one.save(tmp_path / "A.HTML")
    compare([one, two]).save(tmp_path / "b.html")
    assert [[r.title for r in reports] for reports in seen] == [
        [one.title],
        [one.title, "other"],
    ]
    assert (tmp_path / "A.HTML").read_bytes() == b"<html>"


def test_a_failing_page_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    make_report().save(path)
    before = path.read_bytes()

    def broken(*args):
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(OSError, match="disk full"):
        make_report(title="new").save(path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_comparison(tmp_path):
    one, two = make_report(findings=[]), make_report(title="other", findings=[])
    both = compare([one, two])
    assert both.warnings == []
    both.save(tmp_path / "both.json")
    assert Comparison.load(tmp_path / "both.json") == both
    with pytest.raises(ValueError, match="at least one"):
        compare([])
    with pytest.raises(TypeError, match=r"Report\.load"):
        compare(["report.json"])
    one.save(tmp_path / "one.json")
    with pytest.raises(ValueError, match="holds no comparison"):
        Comparison.load(tmp_path / "one.json")


def test_mismatches_are_told():
    threat = {"norm": "linf", "epsilon": 8 / 255, "input_range": [0, 1]}
    one = make_report()
    for changes, word in (
        ({"threat_model": {**threat, "norm": "l2"}}, "norm"),
        ({"threat_model": {**threat, "epsilon": 0.1}}, "epsilon"),
        ({"threat_model": {**threat, "input_range": [0, 255]}}, "input range"),
        ({"data": {"images": 100, "fingerprint": "cd" * 32}}, "data"),
        ({"attacks": []}, "attacks"),
    ):
        found = mismatches([one, make_report(title="other", **changes)])
        assert len(found) == 1
        assert word in found[0]
    assert mismatches([one, one, one]) == mismatches([one]) == []


def test_other_surrogates_matter_only_if_they_changed_something():
    def with_transfer(source, broken):
        record = AttackRecord(
            name="Transfer",
            access="transfer",
            config={"sources": [source]},
            attacked=50,
            broken=broken,
            accuracy=Rate(50 - broken, 100),
            seconds=1.0,
        )
        return make_report(attacks=[*make_report().attacks, record])

    assert mismatches([with_transfer("a", 0), with_transfer("b", 0)]) == []
    assert len(mismatches([with_transfer("a", 1), with_transfer("b", 0)])) == 1
    assert mismatches([with_transfer("a", 1), with_transfer("a", 0)]) == []
    assert len(mismatches([with_transfer("a", 1), make_report()])) == 1
    assert mismatches([with_transfer("a", 0), make_report()]) == []


def test_how_much_an_attack_prints_is_no_difference():
    def printing(verbose):
        attacks = [
            dataclasses.replace(attack, config={**attack.config, "verbose": verbose})
            for attack in make_report().attacks
        ]
        return make_report(attacks=attacks)

    assert mismatches([printing(0), printing(1), make_report()]) == []


def test_half_a_character_in_a_title_is_kept(tmp_path):
    report = make_report(title="net \udc80 Größe 模型", findings=[])
    report.save(tmp_path / "a.json")
    assert Report.load(tmp_path / "a.json") == report
    assert "Größe 模型" in (tmp_path / "a.json").read_text("utf-8")


def test_codec_keeps_types():
    values = {"a": [1, 1.0, True, None, "x", [], {}], "b": {"c": -math.inf}}
    assert from_json(Any, json.loads(json.dumps(to_json(values)))) == values
    assert from_json(float | None, 1) == 1.0
    assert from_json(int | str, "x") == "x"
    with pytest.raises(ValueError, match="expected int"):
        from_json(int, 1.0)
