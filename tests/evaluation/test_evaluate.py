"""A whole evaluation of a small trained network, held against attacks run by hand."""

import base64
import dataclasses
import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_jsigr.attacks import FGSM, MIFGSM, PGD
from keras_jsigr.attacks.gradient.apgd import APGD
from keras_jsigr.attacks.gradient.bim import BIM
from keras_jsigr.evaluation import call
from keras_jsigr.evaluation.comparison import compare
from keras_jsigr.evaluation.evaluate import evaluate
from keras_jsigr.evaluation.rate import Rate
from keras_jsigr.evaluation.report import Report

EPSILON = 0.1
NAMES = ("bar", "dot", "edge")
# No random starts: what an attack does to an example depends on nothing else.
ATTACKS = [
    FGSM(epsilon=EPSILON),
    BIM(epsilon=EPSILON, steps=5),
    MIFGSM(epsilon=EPSILON, steps=5, loss="margin"),
]

TRANSFER = [ATTACKS[0], ATTACKS[2].at(0.3)]
CURVE = APGD(epsilon=EPSILON, steps=50, early_stop=True)


@pytest.fixture(scope="module", autouse=True)
def _one_curve():
    """One object for all tests: an attack compiles once per model."""
    with pytest.MonkeyPatch.context() as patch:

        def curve_attack(epsilon, norm, **rest):
            shared = CURVE.at(epsilon)
            return (
                shared if norm == "linf" else APGD(epsilon=epsilon, norm=norm, **rest)
            )

        patch.setattr(call, "APGD", curve_attack)
        yield


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


def test_headline_is_the_intersection_of_all_attacks(
    report, net, surrogates, ensemble, data
):
    x, y = data
    masks = [right(net, x, y)]
    assert report.clean == Rate(int(masks[0].sum()), 90)
    for attack in ATTACKS:
        masks.append(masks[-1] & right(net, attack(net, x, y), y))
    for record, before, after in zip(
        report.attacks[:3], masks, masks[1:], strict=False
    ):
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
        "linearized: the gradient is NaN or infinite at 10 of 40 examples, which are "
        "left out."
    ]
    assert np.isfinite([value for _, value in report.linearized.quantiles]).all()


def test_examples(report, net, data):
    x, y = data
    assert len(report.examples) == 5
    assert [e.index for e in report.examples] == sorted(
        e.index for e in report.examples
    )
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
    assert [a.config for a in report.attacks[:3]] == [a.get_config() for a in ATTACKS]
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
        found = evaluate(
            net, *data, epsilon=epsilon, attacks=[attack.at(epsilon)], **settings
        )
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
