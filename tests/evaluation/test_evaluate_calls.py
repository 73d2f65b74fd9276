"""What a call refuses, and that one crash never costs the results of the others."""

from dataclasses import dataclass

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_jsigr.attacks import FGSM, PGD, Attack
from keras_jsigr.attacks.minimum_norm.fab import FAB
from keras_jsigr.attacks.suite import Suite
from keras_jsigr.evaluation import call
from keras_jsigr.evaluation.evaluate import evaluate
from keras_jsigr.evaluation.named_attacks import (
    attack_names,
    attacks_of,
    named_attack,
)
from keras_jsigr.evaluation.parts import curve, examples, linear
from keras_jsigr.evaluation.rate import Rate

RNG = np.random.default_rng(2)
W = RNG.normal(size=(6, 3)).astype("float32")
B = -0.5 * W.sum(0)
ONE = FGSM(epsilon=0.03)
X = RNG.uniform(0.3, 0.7, (30, 6)).astype("float32")
Y = (X @ W + B).argmax(-1)


def model(x):
    return tf.linalg.matmul(x, W) + B


def other(x):
    return tf.linalg.matmul(x, W[::-1]) + B


@pytest.fixture
def settings():
    return dict(
        model=model,
        x=X,
        y=Y,
        epsilon=0.03,
        attacks=[ONE],
        epsilons=[0.03],
        examples=0,
        diagnostics=False,
    )


def test_an_example_without_an_answer_has_no_class(settings):
    def broken(x):
        return tf.where(tf.reduce_any(x != X[:1], axis=1)[:, None], np.nan, model(x))

    one = {"model": broken, "x": X[:1], "y": Y[:1], "examples": 1}
    report = evaluate(**{**settings, **one})
    assert report.robust == Rate(0, 1)
    example = report.examples[0]
    assert example.label == example.predicted == str(Y[0])
    assert example.adversarial == "none"


# One object for all tests: an attack compiles once per model.
CURVE = PGD(epsilon=0.03, steps=3)


@pytest.fixture(autouse=True)
def _one_curve(monkeypatch):
    monkeypatch.setattr(call, "APGD", lambda epsilon, **_: CURVE.at(epsilon))


# ---- crashes


@dataclass(frozen=True, kw_only=True)
class Odd(Attack):
    """Does something wrong."""

    do: str | object = "raise"

    def search(self, logits_fn, problem, seed):
        raise NotImplementedError

    def __call__(self, model, x, y=None, **kwargs):
        if self.do == "raise":
            raise MemoryError("no room\nfor details")
        if self.do == "stop":
            raise KeyboardInterrupt
        if self.do == "shape":
            return x[:, :3]
        if self.do == "nan":
            return np.full_like(x, np.nan)
        if self.do == "one nan":
            x_adv = ONE(model, x, y)
            x_adv[0] = np.nan
            return x_adv
        return x + np.float32({"far": 0.9, "range": 0.02}[self.do])


class Grey(Odd):
    access = "grey box"


class Nameless(Odd):
    name = ""


@pytest.mark.parametrize(
    ("do", "words"),
    [
        ("raise", "MemoryError: no room"),
        ("shape", "ValueError: the attack returned shape (30, 3)"),
        ("nan", "30 of its points were not finite"),
        ("far", "30 of its points were not finite, or outside of the ball"),
    ],
)
def test_a_broken_attack_breaks_nothing(settings, do, words):
    fgsm = settings["attacks"][0]
    expected = evaluate(**settings)
    settings["attacks"] = [Odd(epsilon=0.03, do=do), fgsm, Odd(epsilon=0.03, do=do)]
    found = evaluate(**settings)
    assert found.robust == expected.robust
    assert 0 < found.robust.correct < 30
    broken, good, again = found.attacks
    assert broken.error.startswith(words)
    assert (broken.attacked, broken.broken, broken.accuracy.correct) == (30, 0, 30)
    assert good.broken == expected.attacks[0].broken
    assert again.error is not None
    assert len(found.errors) == 2
    assert "may be too high" in found.errors[0]
    assert found.curve == expected.curve


def test_points_outside_of_the_range_do_not_count(settings):
    x = np.clip(X + 0.3, 0, 1)
    settings |= {"x": x, "y": (x @ W + B).argmax(-1)}
    settings["attacks"] = [Odd(epsilon=0.03, do="range")]
    outside = (x.max(axis=1) > 0.98 + 1e-6).sum()
    assert 0 < outside < 30
    found = evaluate(**settings)
    assert found.attacks[0].error.startswith(f"{outside} of its points")


def test_no_attack_at_all_worked(settings):
    settings["attacks"] = [Odd(epsilon=0.03)]
    found = evaluate(**settings)
    assert found.robust == found.clean
    assert "means nothing" in found.errors[-1]


def test_a_point_that_does_not_count_costs_no_more_than_itself(settings):
    settings["attacks"] = [Odd(epsilon=0.03, do="one nan")]
    found = evaluate(**settings)
    assert found.attacks[0].error.startswith("1 of its points")
    (error,) = found.errors
    assert "lost some of its points" in error


def test_a_model_may_change_between_two_calls(settings):
    class Turned:
        by = 1.0

        def __call__(self, x):
            return self.by * model(x)

    one = Turned()
    settings["model"] = one
    first = evaluate(**settings)
    one.by = -1.0
    second = evaluate(**settings)
    assert first.clean.correct == 30
    assert second.clean.correct < 30


def test_an_interrupt_is_passed_on(settings):
    settings["attacks"] = [Odd(epsilon=0.03, do="stop")]
    with pytest.raises(KeyboardInterrupt):
        evaluate(**settings)


def test_crashed_parts(settings, monkeypatch):
    def crash(*args, **kwargs):
        raise RuntimeError("out of luck")

    expected = evaluate(**settings)
    monkeypatch.setattr(linear, "linearized_robustness", crash)
    monkeypatch.setattr(curve, "attack_rows", crash)
    monkeypatch.setattr(examples, "gradient_map", crash)
    monkeypatch.setattr(examples, "as_images", lambda x: x)
    import keras_jsigr.evaluation.masking as package

    monkeypatch.setattr(package, "diagnostics", crash)
    found = evaluate(**{**settings, "diagnostics": True, "examples": 3})
    assert found.errors == [
        "curve: RuntimeError: out of luck",
        "linearized: RuntimeError: out of luck",
        "diagnostics: RuntimeError: out of luck",
        "examples: RuntimeError: out of luck",
    ]
    assert (found.clean, found.robust) == (expected.clean, expected.robust)
    assert found.attacks[0].broken == expected.attacks[0].broken
    assert found.curve == expected.curve[:1]
    assert (found.linearized, found.findings, found.examples) == (None, [], [])


def test_a_crashed_surrogate_costs_its_own_rows(settings):
    def flat(x):
        return other(tf.stop_gradient(x))

    surrogates = {"flat": flat, "good": other}
    settings |= {"surrogates": surrogates, "transfer_attacks": ["fgsm"]}
    found = evaluate(**settings)
    (error,) = found.errors
    assert error.startswith("transfer: FGSM on flat: ValueError: ")
    sources = dict.fromkeys(record.source for record in found.transfer)
    assert list(sources) == ["model", "good", "ensemble", "any surrogate"]
    assert found.attacks[-1].config["sources"] == ["good", "ensemble"]


def test_no_name_of_a_surrogate_takes_the_place_of_another(settings):
    """Who is evaluated stays so, however the others are called."""
    taken = ["model", "model (evaluated)", "ensemble", "ensemble of all"]
    taken += ["any surrogate", "any of the surrogates"]
    settings |= {"surrogates": dict.fromkeys(taken, other), "transfer_attacks": [ONE]}
    plain = evaluate(**{**settings, "surrogates": {"o": other}})
    found = evaluate(**settings)
    assert {record.target for record in found.transfer} == {"model (evaluated) (2)"}
    sources = list(dict.fromkeys(record.source for record in found.transfer))
    assert sources == [
        "model (evaluated) (2)",
        *taken,
        "ensemble of all (2)",
        "any of the surrogates (2)",
    ]
    assert found.transfer[0].accuracy == plain.transfer[0].accuracy
    assert found.robust == plain.robust


@pytest.mark.parametrize("do", ["far", "nan"])
def test_transferred_points_outside_of_the_ball_do_not_count(settings, do):
    settings["y"] = Y.copy()
    settings["y"][:2] = (Y[:2] + 1) % 3
    expected = evaluate(**settings)
    odd = Odd(epsilon=0.03, do=do)
    settings |= {"surrogates": {"o": other}, "transfer_attacks": [odd]}
    found = evaluate(**settings)
    assert found.robust == expected.robust
    assert found.attacks[-1].access == "transfer"
    assert (found.attacks[-1].broken, found.attacks[-1].attacked) == (
        0,
        expected.robust.correct,
    )
    assert found.attacks[-1].error.startswith("30 of its points were not finite")
    # Wrong without attack is wrong.
    assert {record.accuracy for record in found.transfer} == {Rate(28, 30)}
    assert found.errors[0].startswith("transfer: Odd on model at 0.03: 30 of its")
    assert len(found.errors) == 4


def test_diagnostics_are_told_what_is_known(settings, monkeypatch):
    import keras_jsigr.evaluation.masking as package

    seen = {}

    def watch(model, x, y, **kwargs):
        seen.update(kwargs, x=x, y=y)
        return []

    monkeypatch.setattr(package, "diagnostics", watch)
    black = Odd(epsilon=0.03, do="raise")
    settings |= {"attacks": [FGSM(epsilon=0.03), black], "surrogates": {"o": other}}
    found = evaluate(**{**settings, "diagnostics": True, "transfer_attacks": ["fgsm"]})
    assert seen["epsilon"] == 0.03
    assert seen["surrogates"] == {"o": other}
    moved = (seen["results"]["suite"] != X).any(axis=1)
    assert moved.sum() == found.attacks[0].broken > 0
    wrong = model(seen["results"]["suite"]).numpy().argmax(-1) != Y
    np.testing.assert_array_equal(wrong, moved)


def test_half_precision(settings):
    def as_float32(x):
        return model(tf.cast(x, tf.float32))

    settings |= {"model": as_float32, "x": X.astype("float16"), "examples": 2}
    found = evaluate(**settings)
    assert found.errors == []
    assert found.attacks[0].error is None
    assert 0 < found.robust.correct < found.clean.correct
    assert found.linearized is not None


# ---- attacks by name and in suites


def test_every_name_makes_an_attack():
    threat = dict(input_range=(0.0, 1.0), batch_size=8, seed=3)
    for name in attack_names():
        norm = "l2" if name == "carlini-wagner" else "linf"
        attack = named_attack(name, epsilon=0.1, norm=norm, verbose=0, **threat)
        assert (attack.epsilon, attack.norm, attack.seed) == (0.1, norm, 3)


def test_what_attacks_may_be():
    threat = dict(
        epsilon=0.1, norm="linf", input_range=(0.0, 1.0), batch_size=8, seed=0
    )
    one = PGD(epsilon=0.1)
    assert attacks_of(one, **threat) == [one]
    assert attacks_of((one, "fgsm"), **threat)[0] == one
    assert [a.name for a in attacks_of("pgd", **threat)] == ["PGD"]
    assert attacks_of(Suite([one]), **threat) == [one]
    standard = [attack.name for attack in attacks_of("standard", **threat)]
    assert standard == ["APGD-CE", "APGD-T", "FAB-T", "Square"]
    # Without a radius of its own, it takes that of the threat model.
    assert attacks_of([FAB()], **threat)[0].epsilon == 0.1


# ---- bad input


def sequential(classes=3, inputs=6):
    return keras.Sequential([keras.Input((inputs,)), keras.layers.Dense(classes)])


def two_inputs():
    a, b = keras.Input((6,)), keras.Input((6,))
    return keras.Model([a, b], keras.layers.Dense(3)(a + b))


NAN = np.where(np.arange(6) == 2, np.nan, X)
BAD = {
    "range": ({"x": 255 * X}, ValueError, "leaves the input range"),
    "nan": ({"x": NAN}, ValueError, "NaN or infinity"),
    "dtype": ({"x": (9 * X).astype(int)}, TypeError, "expected a float dtype"),
    "empty": ({"x": X[:0], "y": Y[:0]}, ValueError, "at least one example"),
    "list": ({"x": X.tolist()}, TypeError, "expected one NumPy array"),
    "no axes": ({"x": X[:, 0]}, ValueError, r"a batch \(N, ...\)"),
    "lengths": ({"y": Y[:-1]}, ValueError, r"shape \(29,\) for 30 examples"),
    "no labels": ({"y": None}, ValueError, "`y` is None"),
    "labels": ({"y": Y + 1}, ValueError, "out of range: got 3.* 0 to 2"),
    "negative": ({"y": Y - 1}, ValueError, "`y` is out of range"),
    "rows": ({"y": np.ones((30, 3))}, ValueError, "no one-hot row"),
    "zero": ({"epsilon": 0}, ValueError, "`epsilon` is out of range"),
    "text": ({"epsilon": "8/255"}, TypeError, "`epsilon` is not a number"),
    "large": ({"epsilon": 8}, ValueError, r"too large: got 8 .*8/255"),
    "norm": ({"norm": "linfty"}, ValueError, "Unknown `norm`"),
    "interval": ({"input_range": (1, 0)}, ValueError, "`input_range`"),
    "name": ({"attacks": ["pdg"]}, ValueError, "got 'pdg', expected.*'pgd'"),
    "word": ({"attacks": "pgd-9"}, ValueError, "got 'pgd-9'.*'standard'"),
    "none": ({"attacks": []}, TypeError, "`attacks` is .*at least one attack"),
    "none to transfer": ({"transfer_attacks": []}, TypeError, "`transfer_attacks` is"),
    "access": ({"attacks": [Grey(epsilon=0.03)]}, ValueError, "access.*got 'grey box'"),
    "no name": ({"attacks": [Nameless(epsilon=0.03)]}, TypeError, "expected a name"),
    "object": ({"attacks": [model]}, TypeError, "holds a function"),
    "radius": ({"attacks": [FGSM(epsilon=0.1)]}, ValueError, r"epsilon 0.1.*0.03"),
    "other norm": ({"attacks": [PGD(epsilon=0.03, norm="l2")]}, ValueError, "got norm"),
    "other range": (
        {"attacks": [FGSM(epsilon=0.03, input_range=(0, 255))]},
        ValueError,
        "got input_range",
    ),
    "config": (
        {"attacks": [Odd(epsilon=0.03, do=W)]},
        TypeError,
        r"get_config\(\)\.do",
    ),
    "targeted": (
        {"attacks": [FGSM(epsilon=0.03, targeted=True)]},
        ValueError,
        "is targeted",
    ),
    "transfer name": ({"transfer_attacks": ["mi"]}, ValueError, "Unknown `attack`"),
    "radii": ({"epsilons": [0.1, 0.0]}, ValueError, r"`epsilons\[1\]`"),
    "one radius": ({"epsilons": 0.1}, ValueError, "expected a list"),
    "names": ({"class_names": ["a", "b"]}, ValueError, "expected 3 strings"),
    "one name": ({"class_names": "abc"}, ValueError, "expected 3 strings"),
    "batch": ({"batch_size": 0}, ValueError, "`batch_size`"),
    "seed": ({"seed": -1}, ValueError, "`seed`"),
    "examples": ({"examples": -1}, ValueError, "`examples`"),
    "diagnostics": ({"diagnostics": "no"}, ValueError, "`diagnostics`"),
    "verbose": ({"verbose": 2}, ValueError, "`verbose`"),
    "title": ({"title": 3}, TypeError, "`title` is 3"),
    "resume": ({"resume": True}, TypeError, "`resume` is True"),
    "model": ({"model": "net.keras"}, TypeError, "expected a Keras model"),
    "shape": ({"model": sequential(inputs=7)}, ValueError, r"\(6,\), expected \(7,\)"),
    "two inputs": ({"model": two_inputs()}, ValueError, "takes 2 inputs"),
    "outputs": ({"model": lambda x: x[:, None]}, ValueError, r"expected \(B, C\)"),
    "nan outputs": (
        {"model": lambda x: model(x) / 0},
        ValueError,
        "NaN or infinite at 16 of 16",
    ),
    "itself": ({"surrogates": [model]}, ValueError, "evaluated model itself"),
    "classes": ({"surrogates": [sequential(4)]}, ValueError, "4 classes, expected 3"),
    "inputs": (
        {"surrogates": {"b": sequential(inputs=7)}},
        ValueError,
        "surrogate 'b'",
    ),
    "one model": ({"surrogates": other}, TypeError, "a list of models"),
    "key": ({"surrogates": {3: other}}, TypeError, "has the key 3"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(settings, monkeypatch, case):
    changes, error, message = BAD[case]

    def never(*args, **kwargs):
        raise AssertionError("an attack was run")

    monkeypatch.setattr(Attack, "__call__", never)
    with pytest.raises(error, match=message) as caught:
        evaluate(**{**settings, **changes})
    # Got, expected, what to do.
    assert "xpected" in str(caught.value)


def test_the_base_of_the_hardened_model_is_itself(settings):
    from keras_jsigr import JSIGRModel

    net = sequential()
    for pair in ((net, JSIGRModel(net)), (JSIGRModel(net), net)):
        with pytest.raises(ValueError, match="evaluated model itself"):
            evaluate(**{**settings, "model": pair[0], "surrogates": [pair[1]]})


def test_hardened_models_are_described(settings):
    from keras_jsigr import JSIGRModel

    net = sequential()
    net.set_weights([W, B])
    found = evaluate(**{**settings, "model": JSIGRModel(net)})
    assert found.model["hardened"] is True
    assert found.model["name"] == net.name
    assert "jacobian_weight" in found.model["settings"]
    assert found.clean == Rate(30, 30)
    assert found.errors == []
