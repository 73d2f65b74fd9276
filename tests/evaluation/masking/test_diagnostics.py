"""The call: honest networks pass, masked ones do not, crashes cost one finding."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_jsigr.attacks.balls.ball import BALLS
from keras_jsigr.evaluation.json_codec import from_json, to_json
from keras_jsigr.evaluation.masking import diagnose, diagnostics
from keras_jsigr.evaluation.masking.rules import RULES, Rule
from keras_jsigr.evaluation.masking.verdict import Verdict
from keras_jsigr.evaluation.records import Finding

X = np.random.default_rng(0).uniform(0.1, 0.9, (60, 3)).astype("float32")
Y = X.argmax(-1)


def linear(x):
    return 5.0 * x


def suspects(findings):
    return [f.rule for f in findings if f.status == "suspect"]


@pytest.fixture
def cheap(monkeypatch):
    """Only two quick rules."""

    def harmless(subject):
        return Verdict(False, "Fine.", {"sum": subject.x.sum()}, "Never shown.")

    def broken(subject):
        raise RuntimeError("no luck\nat all")

    rules = {"harmless": Rule("Harmless", harmless), "broken": Rule("Broken", broken)}
    monkeypatch.setattr(diagnose, "RULES", rules)


@pytest.fixture(scope="module")
def honest_findings(honest, test_set):
    return {
        name: diagnostics(net, *test_set, epsilon=0.1, verbose=0)
        for name, net in honest.items()
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", ["plain", "adversarial", "hardened"])
def test_honest_networks_pass(honest_findings, name):
    findings = honest_findings[name]
    assert [f.rule for f in findings] == list(RULES)
    assert [(f.rule, f.says) for f in findings if f.status != "ok"] == []
    assert all(f.advice == "" for f in findings)
    for f in findings:
        assert f.figures["examples"] == f.figures["examples_given"] == 120
        assert all(np.isfinite(list(f.figures.values())))
    document = json.loads(json.dumps(to_json(findings)))
    assert from_json(list[Finding], document) == findings


@pytest.mark.slow
def test_networks_are_what_they_should_be(honest_findings):
    """The test above means nothing on networks that learned nothing."""
    robust = {}
    for name, findings in honest_findings.items():
        figures = {f.rule: f.figures for f in findings}["noise"]
        assert figures["clean_accuracy"] > 0.6
        robust[name] = figures["pgd_accuracy"]
    assert robust["plain"] + 0.15 < min(robust["adversarial"], robust["hardened"])


@pytest.fixture
def own(monkeypatch):
    """The rules that compute with norms and dtypes themselves; no attack's own."""
    names = ("zero_gradients", "randomness", "logit_scale", "local_linearity", "noise")
    few = {name: RULES[name] for name in names}
    monkeypatch.setattr(diagnose, "RULES", few)


@pytest.mark.slow
def test_one_sigmoid_unit_in_half_precision_under_l2(own):
    keras.utils.set_random_seed(0)
    layers = [keras.Input((3,)), keras.layers.Dense(1, activation="sigmoid")]
    net = keras.Sequential(layers)
    x, y = X.astype("float16"), np.asarray(net(X) > 0.5, int)
    settings = {"epsilon": 0.1, "norm": "l2", "batch_size": 50}
    findings = diagnostics(net, x, y, verbose=0, **settings)
    assert [f.status for f in findings] == ["ok"] * 5


@pytest.mark.slow
@pytest.mark.skipif("l1" not in BALLS, reason="no L1 ball")
def test_l1(own):
    findings = diagnostics(linear, X, Y, epsilon=0.2, norm="l1", verbose=0)
    assert [f.status for f in findings] == ["ok"] * 5


def test_always_wrong_model_is_skipped_not_accused():
    findings = diagnostics(linear, X, (Y + 1) % 3, epsilon=0.1, verbose=0)
    by_rule = {f.rule: f for f in findings}
    assert suspects(findings) == []
    assert by_rule["noise"].status == "skipped"
    assert "No example is classified rightly" in by_rule["noise"].says
    assert by_rule["zero_gradients"].status == "ok"


def test_a_crash_costs_one_finding(cheap, capsys):
    fine, broken = diagnostics(linear, X, Y, epsilon=0.1, verbose=1)
    assert (fine.status, fine.says, fine.advice) == ("ok", "Fine.", "")
    assert (broken.status, broken.title) == ("skipped", "Broken")
    assert "RuntimeError: no luck" in broken.says
    assert "broken: skipped" in capsys.readouterr().out


def test_subsample_is_drawn_by_the_seed(cheap, monkeypatch):
    monkeypatch.setattr(diagnose, "IMAGES", 20)

    def total(**settings):
        first, _ = diagnostics(linear, X, Y, epsilon=0.1, verbose=0, **settings)
        assert first.figures["examples"] == 20.0
        assert first.figures["examples_given"] == 60.0
        return first.figures["sum"]

    assert total() == total(seed=0) != total(seed=1)


def test_results_and_labels_are_subsampled_alike(monkeypatch):
    monkeypatch.setattr(diagnose, "IMAGES", 20)
    seen = {}

    def look(subject):
        seen["x"], seen["y"] = subject.x, subject.y
        seen["points"], seen["names"] = subject.results["mine"], subject.surrogates
        return Verdict(False, "", {})

    monkeypatch.setattr(diagnose, "RULES", {"look": Rule("Look", look)})
    rows = tf.one_hot(Y, 3)
    options = {"results": {"mine": X + 0.0}, "surrogates": [lambda x: 2.0 * x]}
    diagnostics(linear, tf.constant(X), rows, epsilon=0.1, verbose=0, **options)
    np.testing.assert_array_equal(seen["x"].argmax(-1), seen["y"])
    np.testing.assert_array_equal(seen["points"], seen["x"])
    assert list(seen["names"]) == ["surrogate 1"]


def test_same_seed_same_figures():
    def masked(x):
        return tf.round(6.0 * x)

    few = {name: RULES[name] for name in ("softmax_outputs", "noise")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(diagnose, "RULES", few)
        runs = [
            diagnostics(masked, X, Y, epsilon=0.1, verbose=0, seed=seed)
            for seed in (3, 3, 4)
        ]
    assert runs[0] == runs[1] != runs[2]


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"epsilon": 0.0}, ValueError, "`epsilon` is out of range"),
        ({"epsilon": 1.0}, ValueError, "`epsilon` is too large"),
        ({"norm": "l0"}, ValueError, "Unknown `norm`"),
        ({"input_range": (0.0, 0.5)}, ValueError, "leaves the input range"),
        ({"batch_size": 0}, ValueError, "`batch_size`"),
        ({"seed": -1}, ValueError, "`seed`"),
        ({"verbose": 2}, ValueError, "Unknown `verbose`"),
        ({"y": Y[:5]}, ValueError, "does not match"),
        ({"y": Y + 7}, ValueError, "out of range"),
        ({"model": "net.keras"}, TypeError, "expected a Keras model"),
        ({"surrogates": linear}, TypeError, "`surrogates`"),
        ({"surrogates": [linear]}, ValueError, "itself"),
        ({"results": [X]}, TypeError, "`results`"),
        ({"results": {"mine": X[:5]}}, ValueError, "one point per example"),
        ({"results": {"mine": X + 0.101}}, ValueError, "got 60 points outside"),
    ],
)
def test_refuses_before_any_work(cheap, change, error, words):
    call = {"model": linear, "x": X, "y": Y, "epsilon": 0.1, "verbose": 0} | change
    with pytest.raises(error, match=words):
        diagnostics(call.pop("model"), call.pop("x"), call.pop("y"), **call)
