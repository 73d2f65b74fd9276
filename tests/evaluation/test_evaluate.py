"""A whole evaluation of a small trained network, held against attacks run by hand."""

import base64
import dataclasses
import functools
import json
from dataclasses import dataclass

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_jsigr
from keras_jsigr import harden
from keras_jsigr.attacks import FGSM, MIFGSM, PGD, Attack, HopSkipJump, Square
from keras_jsigr.attacks.apgd import APGD
from keras_jsigr.attacks.pgd import BIM
from keras_jsigr.attacks.suite import attack_names, named_attack
from keras_jsigr.core.logits import innermost_line
from keras_jsigr.evaluation import (
    Rate,
    Report,
    compare,
    diagnostics,
    evaluate_saliency,
    examples,
    gradient_masking,
    robust_evaluation,
    transfer_matrix,
)
from keras_jsigr.evaluation import evaluate_robustness as evaluate
from keras_jsigr.evaluation import robustness as parts
from keras_jsigr.evaluation.records import CRASHED
from keras_jsigr.evaluation.render import tables
from keras_jsigr.evaluation.run import model_name
from keras_jsigr.saliency import METHODS, explain

EPSILON = 0.1
NAMES = ("bar", "dot", "edge")
# No random starts: what an attack does to an example depends on nothing else.
ATTACKS = [
    FGSM(epsilon=EPSILON),
    BIM(epsilon=EPSILON, steps=5),
    MIFGSM(epsilon=EPSILON, steps=5, loss="margin"),
]


TRANSFER = [ATTACKS[0], ATTACKS[2].at(0.3)]
CURVE = APGD(
    EPSILON,
    input_range=(0.0, 1.0),
    steps=50,
    early_stop=True,
    batch_size=32,
    verbose=0,
)


def draw(count, seed):
    rng = np.random.default_rng(seed)
    marks = np.zeros((3, 6, 6, 1))
    marks[0, :, 2], marks[1, 2:4, 2:4], marks[2, 0] = 1, 1, 1
    y = rng.integers(3, size=count)
    x = 0.35 + 0.3 * marks[y] + rng.normal(scale=0.12, size=(count, 6, 6, 1))
    return x.clip(0, 1).astype("float32"), y


def train(seed, *body):
    """Random features and a least squares fit on top: trained without an optimizer."""
    keras.utils.set_random_seed(seed)
    features = keras.Sequential([keras.Input((6, 6, 1)), *body])
    net = keras.Sequential([keras.Input((6, 6, 1)), features, keras.layers.Dense(3)])
    x, y = draw(256, seed)
    inputs = np.c_[np.asarray(features(x)), np.ones(256)]
    ridge = inputs.T @ inputs + 1.0 * np.eye(inputs.shape[1])
    weights = np.linalg.solve(ridge, inputs.T @ (10.0 * np.eye(3)[y]))
    net.layers[-1].set_weights([weights[:-1], weights[-1]])
    return net


@pytest.fixture(scope="module")
def net():
    layers = keras.layers
    return train(1, layers.Conv2D(4, 3, activation="silu"), layers.Flatten())


@pytest.fixture(scope="module")
def surrogates():
    layers = keras.layers
    mlp = train(2, layers.Flatten(), layers.Dense(8, activation="tanh"))
    return {"mlp": mlp, "linear": train(3, layers.Flatten())}


@pytest.fixture(scope="module")
def ensemble(surrogates):
    return lambda x: sum(model(x) for model in surrogates.values()) / 2


@pytest.fixture(scope="module")
def data():
    return draw(90, 9)


@pytest.fixture(scope="module")
def report(net, surrogates, data):
    return evaluate(
        net,
        *data,
        epsilon=EPSILON,
        attacks=ATTACKS,
        surrogates=surrogates,
        transfer_attacks=TRANSFER,
        epsilons=[0.2, 0.05],
        class_names=NAMES,
        diagnostics=False,
        examples=5,
        batch_size=32,
        title="A test",
    )


def right(model, x, y):
    return model.predict(x, verbose=0).argmax(-1) == y


def test_headline_is_the_intersection_of_all_attacks(report, net, surrogates, ensemble, data):
    x, y = data
    masks = [right(net, x, y)]
    assert report.clean == Rate(int(masks[0].sum()), 90)
    for attack in ATTACKS:
        masks.append(masks[-1] & right(net, attack(net, x, y), y))
    for record, before, after in zip(report.attacks[:3], masks, masks[1:], strict=False):
        assert record.attacked == before.sum()
        assert record.broken == before.sum() - after.sum()
        assert record.accuracy == Rate(int(after.sum()), 90)
        assert record.error is None
    assert 0 < masks[-1].sum() < masks[1].sum() < masks[0].sum()
    worst = masks[-1].copy()
    for source in (*surrogates.values(), ensemble):
        for attack in TRANSFER:
            worst &= right(net, attack.at(EPSILON)(source, x, y), y)
    assert report.robust == Rate(int(worst.sum()), 90)
    last = report.attacks[-1]
    assert (last.name, last.access) == ("Transfer", "transfer")
    assert (last.attacked, last.accuracy) == (masks[-1].sum(), report.robust)
    assert last.config["sources"] == ["mlp", "linear", "ensemble"]


def test_classes_sum_to_the_whole(report, data):
    assert [record.name for record in report.classes] == list(NAMES)
    for number, record in enumerate(report.classes):
        assert record.clean.total == record.robust.total == (data[1] == number).sum()
        assert record.robust.correct <= record.clean.correct
    assert sum(r.clean.correct for r in report.classes) == report.clean.correct
    assert sum(r.robust.correct for r in report.classes) == report.robust.correct


def test_curve(report, net, data):
    x, y = data
    assert [p.epsilon for p in report.curve] == [0.0, 0.05, 0.2]
    assert report.curve[0].accuracy == report.clean
    assert report.curve_attack["name"] == "APGD-CE"
    assert APGD.from_config(report.curve_attack["config"]) == CURVE.at(EPSILON)
    rows = np.flatnonzero(right(net, x, y))
    for point in report.curve[1:]:
        x_adv = CURVE.at(point.epsilon)(net, x[rows], y[rows])
        rows = rows[right(net, x_adv, y[rows])]
        assert point.accuracy.correct == len(rows)
    # The attack is no weaker than the suite's, radius for radius.
    assert report.curve[2].accuracy.correct < report.robust.correct
    assert report.chance == np.bincount(y).max() / 90


def test_transfer(report, net, surrogates, ensemble, data):
    x, y = data
    sources = ["sequential", "mlp", "linear", "ensemble"]
    target = net.name
    keys = [(r.source, r.attack, r.epsilon) for r in report.transfer]
    expected = [
        (source, attack, epsilon)
        for source in [target, *sources[1:], "any surrogate"]
        for attack in [attack.name for attack in TRANSFER]
        for epsilon in (EPSILON, 2 * EPSILON)
    ]
    assert keys == expected
    assert {r.target for r in report.transfer} == {target}
    prints = {(r.source, r.fingerprint) for r in report.transfer}
    # One model, one fingerprint, and no two of them alike.
    assert len(prints) == len(dict(prints)) == len({p for _, p in prints}) == 5
    assert {r.source for r in report.transfer if r.union} == {"any surrogate"}
    found = {key: r.accuracy for key, r in zip(keys, report.transfer, strict=True)}
    for source, model in ((target, net), *surrogates.items()):
        for epsilon in (EPSILON, 2 * EPSILON):
            x_adv = TRANSFER[0].at(epsilon)(model, x, y)
            expected = Rate(int(right(net, x_adv, y).sum()), 90)
            assert found[source, "FGSM", epsilon] == expected
    worst = np.ones(90, bool)
    for source in (*surrogates.values(), ensemble):
        worst &= right(net, TRANSFER[0](source, x, y), y)
    assert found["any surrogate", "FGSM", EPSILON].correct == worst.sum()


@pytest.mark.slow
def test_settings_of_one_transfer_attack_are_told_apart():
    rng = np.random.default_rng(0)
    w = rng.normal(size=(6, 3)).astype("float32")
    near = w + 0.3 * rng.normal(size=w.shape).astype("float32")
    x = rng.uniform(0.2, 0.8, (60, 6)).astype("float32")
    weak = MIFGSM(epsilon=EPSILON, steps=1, step_size=0.01)
    strong = MIFGSM(epsilon=EPSILON, steps=10)

    # The same functions in each evaluation: an attack is traced once for each.
    def net(x):
        return tf.matmul(x, w)

    def other(x):
        return tf.matmul(x, near)

    def transferred(*attacks):
        return evaluate(
            net,
            x,
            (x @ w).argmax(-1),
            epsilon=EPSILON,
            attacks=[weak],
            surrogates={"near": other},
            transfer_attacks=list(attacks),
            epsilons=[EPSILON],
            diagnostics=False,
            verbose=0,
        )

    both = transferred(weak, strong)
    found = {(r.source, r.attack): r.accuracy.correct for r in both.transfer}
    assert [attack for source, attack in found if source == "near"] == [
        "MIFGSM",
        "MIFGSM (2)",
    ]
    assert found["near", "MIFGSM (2)"] < found["near", "MIFGSM"]
    # The white box of the same settings is the one to compare with.
    assert "(MIFGSM (2) against near)" in both.summary()
    assert "Access makes the attack weaker" not in both.summary()
    config = both.attacks[-1].config
    assert [c["steps"] for c in config["settings"].values()] == [1, 10]
    warnings = compare([transferred(weak), transferred(strong)]).warnings
    assert "differ in the transfer attacks" in warnings[-1]
    same = compare([transferred(strong), transferred(strong)]).warnings
    assert same == []


def test_gradients_that_are_no_number_are_told():
    def rooted(x):
        root = tf.sqrt(x[:, :1])
        return tf.concat([1.0 + root, x[:, 1:]], axis=-1)

    x = np.full((40, 2), 0.5, "float32")
    x[:10, 0] = 0.0
    with pytest.warns(RuntimeWarning, match="NaN or infinite at 10 of 40"):
        report = evaluate(
            rooted,
            x,
            np.zeros(40, int),
            epsilon=EPSILON,
            attacks=[FGSM(epsilon=EPSILON)],
            epsilons=[EPSILON],
            diagnostics=False,
            verbose=0,
        )
    assert report.errors == [
        "linearized: the gradient is NaN or infinite at 10 of 40 examples, which are left out."
    ]
    assert np.isfinite([value for _, value in report.linearized.quantiles]).all()


def test_examples(report, net, data):
    x, y = data
    assert len(report.examples) == 5
    assert [e.index for e in report.examples] == sorted(e.index for e in report.examples)
    assert len({e.label for e in report.examples}) == 3
    for example in report.examples:
        assert example.label == example.predicted == NAMES[y[example.index]]
        assert example.adversarial in NAMES
        assert example.adversarial != example.label
        assert 0 < example.distance <= EPSILON * 1.0001
        assert example.attack in {a.name for a in ATTACKS}
        titles = ["image", "perturbation", "attacked image", "gradient map"]
        assert list(example.pictures) == [*titles, "gradient map, attacked"]
        pictures = {
            name: tf.io.decode_png(base64.b64decode(text)).numpy()
            for name, text in example.pictures.items()
        }
        image = pictures["image"]
        np.testing.assert_array_equal(image, np.round(x[example.index] * 255))
        attacked = pictures["attacked image"].astype(int) - image
        assert np.abs(attacked).max() == pytest.approx(255 * example.distance, abs=1)
        assert np.abs(pictures["perturbation"].astype(int) - 128).max() >= 127
        grown = pictures["perturbation"].astype(int) > 128
        assert (attacked[grown] >= 0).all()
        assert pictures["gradient map"].shape == (6, 6, 3)


def test_what_was_done_is_written_down(report, net, tmp_path):
    assert report.title == "A test"
    assert report.errors == report.findings == []
    assert report.model == {
        "name": net.name,
        "parameters": net.count_params(),
        "classes": 3,
        "input_shape": [6, 6, 1],
        "hardened": False,
        "settings": None,
    }
    assert report.threat_model["epsilon"] == EPSILON
    assert report.data["images"] == 90
    assert len(report.data["fingerprint"]) == 64
    ranged = [dataclasses.replace(a, input_range=(0.0, 1.0)) for a in ATTACKS]
    configs = [{**a.get_config(), "input_range": [0.0, 1.0]} for a in ranged]
    assert [a.config for a in report.attacks[:3]] == configs
    assert report.linearized.norm == "linf"
    assert dict(report.linearized.quantiles)[0.5] > 0
    parts = {"suite", "curve", "transfer", "linearized", "examples", "total"}
    assert set(report.seconds) == parts
    assert report.settings["seed"] == 0
    assert set(report.versions) >= {"python", "tensorflow", "keras", "keras_jsigr"}
    report.save(tmp_path / "a.json")
    assert Report.load(tmp_path / "a.json") == report
    json.loads((tmp_path / "a.json").read_text())


def strip(report):
    """Drop the wall times."""
    attacks = [dataclasses.replace(a, seconds=0.0) for a in report.attacks]
    return dataclasses.replace(report, attacks=attacks, seconds={})


def test_the_same_call_gives_the_same_report(net, data):
    x, y = data
    settings = dict(
        epsilon=EPSILON,
        attacks=[PGD(epsilon=EPSILON, steps=5)],
        epsilons=[0.1],
        diagnostics=False,
        examples=2,
    )
    one = evaluate(net, x, y, **settings)
    forms = evaluate(net, tf.constant(x), np.eye(3)[y], **settings)
    assert strip(one) == strip(forms)
    assert one.attacks[0].broken > 0


def test_the_default_curve_goes_down_to_chance(net, data):
    attack = ATTACKS[0]
    settings = {"diagnostics": False, "examples": 0}
    for epsilon in (0.02, 0.1):
        found = evaluate(net, *data, epsilon=epsilon, attacks=[attack.at(epsilon)], **settings)
        radii = [point.epsilon for point in found.curve]
        accuracies = [point.accuracy.accuracy for point in found.curve]
        assert accuracies == sorted(accuracies, reverse=True)
        # Down to chance, and at least up to the radius of the threat model.
        assert accuracies[-1] <= found.chance
        assert epsilon in radii
        assert accuracies[-2] > found.chance or radii[-1] == epsilon
    assert radii[:5] == pytest.approx([0, 0.025, 0.05, 0.075, 0.1])


def test_features_sigmoid_wide_range_and_two_norm():
    """No images, one unit, inputs in 0..255: known from the linear model."""
    x = np.array([[150, 100], [101, 100], [90, 90], [108, 100]], "float32")
    y = np.array([1, 1, 0, 0])

    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, "sigmoid")])
    model.set_weights([np.array([[0.03], [0.04]]), np.array([-7.0])])
    found = evaluate(
        model,
        x,
        y,
        epsilon=2.0,
        norm="l2",
        attacks=["pgd"],
        epsilons=[1.0, 15.0, 31.0],
        input_range=(0.0, 255.0),
        diagnostics=False,
    )
    # Distances to the boundary: 30, 0.6, 14 and, on the wrong side, 4.8.
    assert (found.clean, found.robust) == (Rate(3, 4), Rate(2, 4))
    assert [p.accuracy.correct for p in found.curve] == [3, 2, 1, 0]
    assert found.linearized.quantiles[3] == (0.5, pytest.approx(14.0, rel=1e-3))
    (example,) = found.examples
    assert (example.index, example.label, example.adversarial) == (1, "1", "0")
    assert example.pictures == {}
    assert 0.6 < example.distance <= 2.001
    assert found.model["parameters"] == 3
    assert found.errors == []


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
def settings(quick_curve):
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


@pytest.fixture
def quick_curve(monkeypatch):
    """PGD of three steps in place of APGD."""

    def quick(steps, early_stop, **settings):
        return PGD(steps=3, **settings)

    monkeypatch.setattr(robust_evaluation, "APGD", quick)


# ---- crashes


@dataclass(frozen=True, kw_only=True)
class Odd(Attack):
    """Does something wrong."""

    do: str | object = "raise"

    def search(self, context):
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


def test_a_broken_attack_breaks_nothing(settings):
    fgsm = settings["attacks"][0]
    expected = evaluate(**settings)
    for do, words in (
        ("raise", "MemoryError: no room"),
        ("shape", "ValueError: the attack returned shape (30, 3)"),
        ("nan", "30 of 30 points were not finite"),
        ("far", "30 of 30 points were not finite, or outside of the ball"),
    ):
        settings["attacks"] = [Odd(epsilon=0.03, do=do), fgsm, Odd(epsilon=0.03, do=do)]
        found = evaluate(**settings)
        assert found.robust == expected.robust
        assert 0 < found.robust.correct < 30
        broken, good, again = found.attacks
        assert broken.error.startswith(words)
        assert broken.broken == 0
        # A row without a result shows no accuracy.
        lost = do in ("raise", "shape")
        assert broken.attacked == (0 if lost else 30)
        assert broken.accuracy == (None if lost else found.clean)
        assert good.broken == expected.attacks[0].broken
        assert again.error is not None
        assert len(found.errors) == 1 + (broken.error != again.error)
        assert "may be too high" in found.errors[0]
        assert found.curve == expected.curve


def test_points_outside_of_the_range_do_not_count(settings):
    x = np.clip(X + 0.3, 0, 1)
    settings |= {"x": x, "y": (x @ W + B).argmax(-1)}
    settings["attacks"] = [Odd(epsilon=0.03, do="range")]
    outside = (x.max(axis=1) > 0.98 + 1e-6).sum()
    assert 0 < outside < 30
    found = evaluate(**settings)
    assert found.attacks[0].error.startswith(f"{outside} of 30 points")


def test_no_attack_at_all_worked(settings):
    settings["attacks"] = [Odd(epsilon=0.03)]
    found = evaluate(**settings)
    assert found.robust == found.clean
    assert "means nothing" in found.errors[-1]


def test_a_point_that_does_not_count_costs_no_more_than_itself(settings):
    settings["attacks"] = [Odd(epsilon=0.03, do="one nan")]
    found = evaluate(**settings)
    assert found.attacks[0].error.startswith("1 of 30 points")
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
    monkeypatch.setattr(parts, "linearized_robustness", crash)
    monkeypatch.setattr(robust_evaluation, "run_curve", crash)
    monkeypatch.setattr(examples, "predict_logits", crash)
    monkeypatch.setattr(gradient_masking, "diagnostics", crash)
    found = evaluate(**{**settings, "diagnostics": True, "examples": 3})
    everything = "curve; linearized; diagnostics; examples"
    assert found.errors == [f"{everything}: RuntimeError: out of luck"]
    assert (found.clean, found.robust) == (expected.clean, expected.robust)
    assert found.attacks[0].broken == expected.attacks[0].broken
    assert (found.curve, expected.curve != []) == ([], True)
    assert (found.linearized, found.findings, found.examples) == (None, [], [])


def test_a_crashed_surrogate_costs_its_own_rows(settings):
    def flat(x):
        return other(tf.stop_gradient(x))

    surrogates = {"flat": flat, "good": other}
    settings |= {"surrogates": surrogates, "transfer_attacks": ["fgsm"]}
    found = evaluate(**settings)
    (error,) = found.errors
    assert error.startswith("transfer, FGSM on flat: ValueError: ")
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


def test_transferred_points_outside_of_the_ball_do_not_count(settings):
    settings["y"] = Y.copy()
    settings["y"][:2] = (Y[:2] + 1) % 3
    expected = evaluate(**settings)
    odd = Odd(epsilon=0.03, do="nan")
    settings |= {"surrogates": {"o": other}, "transfer_attacks": [odd]}
    found = evaluate(**settings)
    assert found.robust == expected.robust
    assert found.attacks[-1].access == "transfer"
    assert (found.attacks[-1].broken, found.attacks[-1].attacked) == (
        0,
        expected.robust.correct,
    )
    assert found.attacks[-1].error.startswith("30 of 30 points were not finite")
    # Wrong without attack is wrong.
    assert {record.accuracy for record in found.transfer} == {Rate(28, 30)}
    assert found.errors[0].startswith("transfer, Odd on model at 0.03; transfer, ")
    assert len(found.errors) == 1


def test_diagnostics_are_told_what_is_known(settings, monkeypatch):
    seen = {}

    def watch(model, x, y, **kwargs):
        seen.update(kwargs, x=x, y=y)
        return []

    monkeypatch.setattr(gradient_masking, "diagnostics", watch)
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
    "no axes": ({"x": X[:, 0]}, ValueError, r"a batch \(N, ...\) with"),
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
    "option": ({"epsilonz": [1]}, TypeError, "unexpected keyword argument"),
    "title": ({"title": 3}, TypeError, "`title` is 3"),
    "resume": ({"resume": True}, TypeError, "`resume` is True"),
    "model": ({"model": "net.keras"}, TypeError, "expected a Keras model"),
    "shape": ({"model": sequential(inputs=7)}, ValueError, r"\(6,\), expected \(7,\)"),
    "one": (
        {"model": keras.Sequential([keras.Input((30, 6)), keras.layers.Flatten()]), "y": [0]},
        ValueError,
        r"expected \(30, 6\). Pass x\[None\]",
    ),
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
    "named": ({"y": np.array(list("abc") * 10)}, TypeError, "class_names.index"),
    "one model": ({"surrogates": other}, TypeError, "a list of models"),
    "key": ({"surrogates": {3: other}}, TypeError, "has the key 3"),
}


def test_bad_input(settings, monkeypatch):
    def never(*args, **kwargs):
        raise AssertionError("an attack was run")

    monkeypatch.setattr(Attack, "__call__", never)
    for changes, error, message in BAD.values():
        with pytest.raises(error, match=message) as caught:
            evaluate(**{**settings, **changes})
        # Got, expected, what to do.
        assert "xpected" in str(caught.value)


def test_the_old_name_warns(settings):
    for package in (keras_jsigr, keras_jsigr.evaluation):
        with pytest.warns(DeprecationWarning, match="`evaluate_robustness`"):
            assert package.evaluate is evaluate


def test_the_base_of_the_hardened_model_is_itself(settings):
    net = sequential()
    for pair in ((net, harden(net, verbose=0)), (harden(net, verbose=0), net)):
        with pytest.raises(ValueError, match="evaluated model itself"):
            evaluate(**{**settings, "model": pair[0], "surrogates": [pair[1]]})


def test_hardened_models_are_described(settings):
    net = sequential()
    net.set_weights([W, B])
    found = evaluate(**{**settings, "model": harden(net, verbose=0)})
    assert found.model["hardened"] is True
    assert found.model["name"] == net.name
    assert "jacobian_weight" in found.model["settings"]
    assert found.clean == Rate(30, 30)
    assert found.errors == []


# ---- nothing of the user's is changed


class Restless(keras.Model):
    """Every call moves statistics, a seed and a metric."""

    def __init__(self):
        super().__init__()
        self.norm = keras.layers.BatchNormalization()
        self.drop = keras.layers.Dropout(0.1, seed=7)
        self.out = keras.layers.Dense(3)
        self.seen = keras.metrics.Mean(name="seen")

    def call(self, x, training=None):
        x = self.norm(x, training=True)
        x = self.drop(x, training=True)
        self.seen.update_state(x)
        return self.out(x)


@pytest.fixture(scope="module")
def restless():
    keras.utils.set_random_seed(3)
    net = Restless()
    net(X)
    net.out.set_weights([W, B])
    return net


def state(net):
    variables = [*net.variables, *net.seen.variables, *net.norm.variables]
    variables += [net.drop.seed_generator.state]
    return {v.path: np.array(v) for v in variables}


def answers(net):
    return np.asarray(net(X)).argmax(-1)


@pytest.mark.parametrize("part", ["evaluate", "diagnose", "saliency", "transfer"])
def test_nothing_of_the_model_is_changed(restless, quick_curve, monkeypatch, part):
    x, y = X[:12], answers(restless)[:12]
    before = state(restless)
    common = {"attacks": ["fgsm"], "epsilons": [0.03]}
    if part == "evaluate":
        report = evaluate(restless, x, y, 0.03, examples=2, diagnostics=False, verbose=0, **common)
        assert report.errors == []
    elif part == "diagnose":
        names = ("zero_gradients", "softmax_outputs", "randomness", "noise")
        rules = {name: gradient_masking.RULES[name] for name in names}
        monkeypatch.setattr(gradient_masking, "RULES", rules)
        findings = diagnostics(restless, x, y, epsilon=0.03, verbose=0)
        # The noise of the layer is still seen.
        statuses = {f.rule: f.status for f in findings}
        assert statuses["randomness"] == "suspect"
        assert not any(f.crashed for f in findings)
    elif part == "saliency":
        parts = ["sparsity", "pgd", "agreement", "sanity"]
        report = evaluate_saliency(
            {"net": restless}, x, y, 0.03, parts=parts, attack_steps=2, verbose=0
        )
        assert report["net"].errors == []
    else:
        transfer_matrix({"net": restless, "other": model}, x, y, **common)
    after = state(restless)
    assert before.keys() == after.keys()
    for name, value in before.items():
        np.testing.assert_array_equal(value, after[name], err_msg=name)


def test_nothing_is_changed_by_what_crashes(restless, monkeypatch):
    x, y = X[:12], answers(restless)[:12]
    before = state(restless)

    def crash(*args, **kwargs):
        raise MemoryError("no room")

    monkeypatch.setattr(parts, "linearized_robustness", crash)
    monkeypatch.setattr(FGSM, "update", crash)
    settings = {"attacks": ["fgsm"], "epsilons": [0.03], "examples": 0}
    report = evaluate(restless, x, y, 0.03, diagnostics=False, verbose=0, **settings)
    assert "MemoryError" in " ".join(report.errors)
    after = state(restless)
    for name, value in before.items():
        np.testing.assert_array_equal(value, after[name], err_msg=name)
    # A call of the user's own moves mean, variance, total, count and seed.
    answers(restless)
    moved = [(value != after[name]).any() for name, value in state(restless).items()]
    assert sum(moved) == 5


# ---- black boxes


class Asked:
    """Count what a callable is asked about, by its own means."""

    def __init__(self, answer, function=tf.numpy_function):
        self.answer, self.function, self.asked = answer, function, 0

    def __call__(self, x):
        return self.function(self.reply, [x], tf.float32)

    def reply(self, x):
        self.asked += len(x)
        return np.asarray(self.answer(x), np.float32)


@pytest.fixture(scope="module")
def pictures():
    """Images whose class is where they are bright; what answers about them."""
    x = np.random.default_rng(0).uniform(size=(24, 6, 6, 1)).astype("float32")
    bright = np.eye(36, dtype="float32")[:, ::12]
    return x, lambda x: 4.0 * np.asarray(x).reshape(-1, 36) @ bright


@pytest.mark.parametrize("kind", ["logits", "probabilities", "decisions"])
def test_black_boxes(pictures, kind):
    x, logits = pictures

    def answer(x):
        if kind == "decisions":
            return np.eye(3)[logits(x).argmax(-1)]
        z = logits(x)
        return z if kind == "logits" else tf.nn.softmax(z).numpy()

    black = Asked(answer)
    attacks = ["apgd-ce", Square(epsilon=0.2, queries=40)]
    if kind == "decisions":
        attacks = ["pgd", HopSkipJump(epsilon=0.2, norm="linf", queries=200)]
    surrogates = {"mine": lambda x: tf.reshape(x, (-1, 36))[:, ::12]}
    report = evaluate(
        black,
        x,
        logits(x).argmax(-1),
        epsilon=0.2,
        attacks=attacks,
        surrogates=surrogates,
        transfer_attacks=["fgsm"],
        verbose=0,
    )
    assert report.queries == black.asked / len(x)
    assert 0 < report.robust.correct < len(x)
    # What was left out is told once, in the summary too.
    (error,) = report.errors
    assert "needs a gradient" in error
    assert report.summary().count("It needs a gradient") == 1
    asked = tables.number(report.queries)
    assert f"asked about {asked} inputs per example" in report.summary()
    assert report.attacks[0].accuracy is None
    # The curve and the pictures come of the attack that works.
    assert report.curve_attack["name"] == report.attacks[1].name
    radii = [point.epsilon for point in report.curve]
    assert radii == sorted({0.0, 0.1, 0.2, *radii})
    assert report.curve[2].accuracy.correct == report.robust.correct + report.attacks[-1].broken
    assert report.curve[1].accuracy.correct >= report.curve[2].accuracy.correct
    assert list(report.examples[0].pictures) == [
        "image",
        "perturbation",
        "attacked image",
    ]
    assert {record.source for record in report.transfer} == {"mine"}
    assert report.linearized is None
    suspect = [f.rule for f in report.findings if f.status == "suspect"]
    assert suspect == ["zero_gradients"]


def test_max_queries(pictures):
    limit = 70
    x, logits = pictures
    black, y = Asked(logits), logits(x).argmax(-1)
    attacks = [Square(epsilon=0.02, queries=5000), "square"]
    settings = {"epsilon": 0.02, "attacks": attacks, "verbose": 0, "examples": 0}
    report = evaluate(black, x, y, max_queries=limit, **settings)
    assert report.queries == black.asked / len(x) <= limit
    assert report.queries > 0.4 * limit
    assert report.attacks[0].attacked == len(x)
    # An open model counts too where a limit is set.
    report = evaluate(
        lambda x: 4.0 * tf.reshape(x, (-1, 36))[:, ::12],
        *(x, y),
        max_queries=limit,
        diagnostics=False,
        **settings,
    )
    assert 0 < report.queries <= limit
    with pytest.raises(ValueError, match="expected a callable"):
        evaluate(sequential(), X, Y, max_queries=limit, **settings)


def test_names_of_what_has_none():
    named = functools.partial(model)
    assert model_name(lambda x: x) == "unnamed function"
    assert (model_name(named), model_name(Asked(model))) == ("model", "Asked")


def test_an_evaluation_leaves_the_model_of_a_callable_alone(settings):
    """The variables are put back, also if the evaluation is interrupted, and told."""
    net = keras.Sequential([keras.Input((6,)), keras.layers.BatchNormalization()])
    before = net.get_weights()
    settings["model"] = lambda x: model(x) + 0.0 * net(x, training=True)[:, :3]
    report = evaluate(**settings)
    assert any("moving_mean" in error for error in report.errors)
    settings["attacks"] = [Odd(epsilon=0.03, do="stop")]
    with pytest.raises(KeyboardInterrupt):
        evaluate(**settings)
    for now, then in zip(net.get_weights(), before, strict=True):
        np.testing.assert_array_equal(now, then)


@pytest.mark.slow
def test_under_check_numerics(net, surrogates, data):
    """Every rule, attack and saliency method gives what it gives without the checks."""
    x, y = data[0][:24], data[1][:24]
    settings = {"epsilon": EPSILON, "surrogates": surrogates, "epsilons": [0.05, 0.1]}

    def found(model):
        report = evaluate(model, x, y, **settings, verbose=0, examples=2)
        maps = {name: explain(model, x, y, method=name) for name in METHODS}
        return report, maps

    plain, maps = found(net)
    twin = keras.models.clone_model(net)  # of which nothing is compiled yet
    twin.set_weights(net.get_weights())
    tf.debugging.enable_check_numerics()
    try:
        checked, again = found(twin)
    finally:
        tf.debugging.disable_check_numerics()
    assert checked.errors == []
    assert not [f.rule for f in checked.findings if f.says.startswith(CRASHED)]
    assert [f.status for f in checked.findings] == [f.status for f in plain.findings]
    assert checked.robust == plain.robust
    for name, values in maps.items():
        np.testing.assert_allclose(again[name], values, atol=1e-5)


def test_the_innermost_line_of_an_error():
    for text, line in [
        ("ValueError: Got no x, expected y.", "ValueError: Got no x, expected y."),
        ("3 of 4 points were not finite", "3 of 4 points were not finite"),
        ("RuntimeError: ", "RuntimeError"),
        ("", None),
        (
            "InvalidArgumentError: Graph execution error:\n\nDetected at node Slice_1 "
            'defined at (most recent call last):\n  File "a.py", line 17, in f\n\n'
            "Expected 1-D.\n\t [[{{node Slice_1}}]] [Op:__inference_search_890]",
            "InvalidArgumentError: Expected 1-D.",
        ),
        (
            "RuntimeError: Exception encountered when calling Bad.call().\n\n\x1b[1mno "
            "luck\nat all\x1b[0m\n\nArguments received by Bad.call():\n  • x=1",
            "RuntimeError: no luck",
        ),
        (
            "UnknownError: Graph execution error:\n\nZeroDivisionError: oh\nTraceback "
            '(most recent call last):\n\n File "a"\n\n   ret = func(*args)\n\n'
            "ZeroDivisionError: oh\n\n\t[[{{node PyFunc}}]]",
            "ZeroDivisionError: oh",
        ),
    ]:
        assert innermost_line(text) == line


def test_names_in_reports_are_names_of_attacks():
    """What a report calls an attack can be passed as `attacks`."""
    for name in attack_names():
        norm = "l2" if name in ("carlini-wagner", "hopskipjump") else "linf"
        attack = named_attack(name, epsilon=0.1, norm=norm)
        assert named_attack(attack.name, epsilon=0.1, norm=norm) == attack
