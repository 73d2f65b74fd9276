"""Transfer between linear models, where it can be worked out, and its bookkeeping."""

import base64

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_jsigr.attacks import FGSM, MIFGSM, PGD
from keras_jsigr.attacks.ensemble import leave_one_family_out
from keras_jsigr.attacks.norms import widest_radius
from keras_jsigr.evaluation.examples import (
    as_images,
    difference_picture,
    image_picture,
    map_picture,
    spread,
)
from keras_jsigr.evaluation.robustness import default_radii
from keras_jsigr.evaluation.run import Log, chance, in_words
from keras_jsigr.evaluation.transfer import transfer_matrix

RNG = np.random.default_rng(8)
X = RNG.uniform(0.35, 0.65, (60, 10)).astype("float32")
EPSILON = 0.05


class Linear:
    """Two classes, `z = (0, w.x + b)`; counts how often it is traced or called."""

    def __init__(self, w):
        self.w = np.asarray(w, "float32")
        self.b = np.float32(-0.5 * self.w.sum())
        self.runs = 0

    def __call__(self, x):
        self.runs += 1
        z = tf.linalg.matvec(x, self.w) + self.b
        return tf.stack([tf.zeros_like(z), z], axis=-1)

    def right(self, x, y):
        return ((x @ self.w + self.b) > 0) == (y == 1)


A = Linear(RNG.normal(size=10))
NEAR = Linear(A.w * np.where(np.arange(10) < 3, -1, 1))
FAR = Linear(RNG.normal(size=10))
# Shared by the tests: an attack compiles once per model.
ONE, MANY = FGSM(epsilon=0.3), MIFGSM(epsilon=0.3, steps=3)
MODELS = {"a": A, "near": NEAR, "far": FAR}
Y = (X @ A.w + A.b > 0).astype(int)


def known(source, target, y=Y, epsilon=EPSILON):
    """The optimum against a linear model, tried on another one."""
    step = np.where(y == 1, -1, 1)[:, None] * np.sign(source.w)
    return target.right(X + epsilon * step.astype("float32"), Y)


@pytest.mark.slow
@pytest.mark.parametrize("attack", [ONE, MANY])
def test_known_transfer(attack):
    records = transfer_matrix(MODELS, X, Y, attacks=[attack], epsilons=[EPSILON, 2 * EPSILON])
    assert len(records) == 3 * 2 * 3
    for record in records:
        source, target = MODELS[record.source], MODELS[record.target]
        expected = known(source, target, epsilon=record.epsilon)
        assert record.accuracy.correct == expected.sum()
        assert record.accuracy.total == 60
        assert record.attack == attack.name
    by = {(r.source, r.target, r.epsilon): r.accuracy.correct for r in records}
    # No source beats the model itself; in this example the nearer one comes closer.
    assert by["a", "a", EPSILON] < by["near", "a", EPSILON] < by["far", "a", EPSILON]


def test_order_and_targets():
    records = transfer_matrix(
        MODELS, X, Y, attacks=[ONE, MANY], epsilons=[0.1, 0.05], targets=["far"]
    )
    found = [(r.source, r.attack, r.epsilon, r.target) for r in records]
    expected = [
        (source, attack, epsilon, "far")
        for source in MODELS
        for attack in (ONE.name, MANY.name)
        for epsilon in (0.05, 0.1)
    ]
    assert found == expected


def test_settings_of_one_attack_are_told_apart():
    weak = FGSM(epsilon=0.3, step_size=0.01)
    records = transfer_matrix({"a": A, "near": NEAR}, X, Y, attacks=[weak, ONE], epsilons=[EPSILON])
    right = {(r.source, r.target, r.attack): r.accuracy.correct for r in records}
    assert len(right) == len(records) == 8
    assert right["a", "a", "FGSM (2)"] == known(A, A).sum() < right["a", "a", "FGSM"]


def test_own_labels():
    """An attacker without labels leaves the source's decision, be it wrong or not."""
    (record,) = transfer_matrix(
        {"far": FAR, "a": A},
        X,
        Y,
        attacks=[ONE],
        epsilons=[EPSILON],
        targets=["a"],
        labels="own",
    )[:1]
    own = (X @ FAR.w + FAR.b > 0).astype(int)
    assert (own != Y).any()
    assert record.accuracy.correct == known(FAR, A, own).sum()
    assert known(FAR, A, own).sum() != known(FAR, A).sum()


def test_only_correct():
    both = NEAR.right(X, Y) & FAR.right(X, Y)
    assert 0 < both.sum() < 60
    records = transfer_matrix(
        MODELS,
        X,
        Y,
        attacks=[ONE],
        epsilons=[EPSILON],
        targets=["near", "far"],
        only_correct=True,
    )
    for record in records:
        expected = known(MODELS[record.source], MODELS[record.target])
        assert record.accuracy.total == both.sum()
        assert record.accuracy.correct == expected[both].sum()


def test_examples_are_made_once_per_source(monkeypatch):
    made = []
    call = FGSM.__call__

    def counted(self, model, x, y=None, **kwargs):
        made.append(self.epsilon)
        return call(self, model, x, y, **kwargs)

    monkeypatch.setattr(FGSM, "__call__", counted)
    transfer_matrix(MODELS, X, Y, attacks=[ONE], epsilons=[0.05, 0.1])
    assert made == [0.05, 0.1] * 3


def test_points_outside_of_the_ball_do_not_count(monkeypatch):
    call = FGSM.__call__

    def far(self, *args, **kwargs):
        x_adv = np.array(call(self, *args, **kwargs))
        x_adv[:7] = X[::-1][:7]
        return x_adv

    monkeypatch.setattr(FGSM, "__call__", far)
    words = r"FGSM on \w+ at 0.05: 7 of 60 points"
    with pytest.warns(RuntimeWarning, match=words):
        (record,) = transfer_matrix(
            {"near": NEAR, "a": A}, X, Y, attacks=[ONE], epsilons=[0.05], targets=["a"]
        )[:1]
    expected = known(NEAR, A)
    expected[:7] = A.right(X, Y)[:7]
    assert record.accuracy.correct == expected.sum()


def test_stored_cells(tmp_path, monkeypatch):
    settings = dict(attacks=[ONE], epsilons=[EPSILON])
    first = transfer_matrix(MODELS, X, Y, resume=tmp_path, **settings)

    def never(*args, **kwargs):
        raise AssertionError("made again")

    monkeypatch.setattr(FGSM, "__call__", never)
    again = transfer_matrix(MODELS, X, Y, resume=tmp_path, **settings)
    assert again == first
    for changed in (
        {"models": {**MODELS, "a": Linear(2 * A.w + 0.1)}},
        {"x": X[::-1]},
        {"y": 1 - Y},
        {"epsilons": [0.06]},
        {"labels": "own"},
        {"targets": ["far", "a"]},
    ):
        arguments = {"models": MODELS, "x": X, "y": Y, **settings, **changed}
        with pytest.raises(RuntimeError, match="AssertionError: made again"):
            transfer_matrix(resume=tmp_path, **arguments)


@pytest.mark.slow
def test_attacks_do_not_stop_early():
    """Stopping where the source is fooled would leave the examples too weak."""
    eager = PGD(epsilon=0.1, early_stop=True, random_start=False)
    strong = PGD(epsilon=0.1, random_start=False)
    models = {"a": A, "far": FAR}
    one, other = (
        transfer_matrix(models, X, Y, attacks=[attack], epsilons=[0.1])
        for attack in (eager, strong)
    )
    assert one == other


def test_leave_one_family_out():
    families = {"a": "cnn", "near": "cnn", "far": "mlp"}
    ensembles = leave_one_family_out(MODELS, families, fuse="logits")
    assert list(ensembles) == ["cnn", "mlp"]
    np.testing.assert_allclose(ensembles["cnn"](X), FAR(X), rtol=1e-6)
    np.testing.assert_allclose(ensembles["mlp"](X), (A(X) + NEAR(X)) / 2, rtol=1e-5)
    fused = leave_one_family_out(MODELS, families)["mlp"](X)
    mean = (tf.nn.softmax(A(X)) + tf.nn.softmax(NEAR(X))) / 2
    np.testing.assert_allclose(np.exp(fused), mean, rtol=1e-4, atol=1e-7)
    with pytest.raises(ValueError, match=r"\['far'\] in only one"):
        leave_one_family_out(MODELS, {"a": "cnn", "near": "cnn"})
    with pytest.raises(ValueError, match="at least two"):
        leave_one_family_out(MODELS, dict.fromkeys(MODELS, "cnn"))


def test_bad_input():
    call = {"models": MODELS, "x": X, "y": Y, "attacks": ["fgsm"], "epsilons": [0.1]}
    two = {"a": A, "b": lambda x: x}
    for changes, error, message in (
        ({"models": {}}, TypeError, "`models`"),
        ({"models": [A]}, TypeError, "`models`"),
        ({"models": two}, ValueError, "model 'b' has 10 classes"),
        ({"models": {"a": A, "b": lambda x: x[:, 99:]}}, ValueError, "model 'b'"),
        ({"targets": ["b"]}, ValueError, "`targets`"),
        ({"labels": "mine"}, ValueError, "`labels`"),
        ({"attacks": []}, TypeError, "`attacks`"),
        ({"attacks": ["unheard"]}, ValueError, "Unknown `attack`"),
        ({"attacks": [FGSM(epsilon=1, norm="l2")]}, ValueError, "another threat model"),
        ({"epsilons": []}, ValueError, "`epsilons`"),
        ({"epsilons": None}, ValueError, "`epsilon` is None"),
        ({"epsilons": [0.1, -1]}, ValueError, r"epsilons\[1\]"),
        ({"epsilons": 0.1}, ValueError, "`epsilons`"),
        ({"y": Y[:-1]}, ValueError, "one label per example"),
        ({"y": Y + 1}, ValueError, "`y` is out of range"),
        ({"y": None}, ValueError, "`y` is None"),
        ({"x": 255 * X}, ValueError, "leaves the input range"),
        (
            {"only_correct": True, "y": 1 - Y, "targets": ["a"]},
            ValueError,
            "No example",
        ),
    ):
        with pytest.raises(error, match=message):
            transfer_matrix(**{**call, **changes})


def decode(picture):
    return tf.io.decode_png(base64.b64decode(picture)).numpy()


def test_image_picture():
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 256, (5, 7, 1))
    np.testing.assert_array_equal(decode(image_picture(grey / 255, (0, 1))), grey)
    pixels = rng.integers(0, 256, (5, 7, 3))
    np.testing.assert_array_equal(decode(image_picture(pixels / 255, (0, 1))), pixels)
    centred = (pixels / 127.5 - 1).astype("float32")
    np.testing.assert_array_equal(decode(image_picture(centred, (-1.0, 1.0))), pixels)
    # Outside of the range: cut, not wrapped around.
    loud = decode(image_picture(3.0 * pixels, (0, 255)))
    np.testing.assert_array_equal(loud, np.minimum(3 * pixels, 255))


def test_difference_picture():
    difference = np.zeros((2, 2, 3))
    assert (decode(difference_picture(difference)) == 128).all()
    difference[0, 0, 1], difference[1, 1, 2] = 1e-3, -5e-4
    shown = decode(difference_picture(difference)).astype(int)
    assert shown[0, 0, 1] == 255
    assert shown[1, 1, 2] == 64
    assert shown[0, 1, 0] == 128


def test_map_picture():
    values = np.arange(100.0).reshape(10, 10)
    shown = decode(map_picture(values)).astype(int)
    assert shown.shape == (10, 10, 3)
    brightness = shown.sum(-1).ravel()
    assert brightness[0] == 4
    assert (np.diff(brightness) >= 0).all()
    np.testing.assert_array_equal(decode(map_picture(7 * values)), shown)
    for odd in (np.zeros((3, 3)), np.full((3, 3), np.nan)):
        assert (decode(map_picture(odd)) == [0, 0, 4]).all()
    one = np.zeros((20, 20))
    one[3, 4] = 2.0
    assert decode(map_picture(one))[3, 4].sum() > 600


def test_what_is_an_image():
    for shape, expected in {
        (9, 8, 6, 1): (9, 8, 6, 1),
        (9, 8, 6, 3): (9, 8, 6, 3),
        (9, 8, 8): (9, 8, 8, 1),
        (9, 8, 6): None,
        (9, 8): None,
        (9, 8, 6, 4): None,
        (9, 4, 8, 6, 3): None,
    }.items():
        found = as_images(np.zeros(shape))
        assert (None if found is None else found.shape) == expected


def test_spread_takes_all_classes_in_turn():
    labels = np.array([0, 0, 0, 0, 1, 2, 2, 0])
    rows = np.arange(8)
    assert spread(rows, labels, 3).tolist() == [0, 4, 5]
    assert spread(rows, labels, 5).tolist() == [0, 1, 4, 5, 6]
    assert spread(rows[1:], labels, 99).tolist() == list(range(1, 8))
    assert spread(rows[:0], labels, 3).tolist() == []
    assert spread(rows, labels, 0).tolist() == []


def test_radii():
    for epsilon, widest in ((8 / 255, 1.0), (0.5, 28.0), (0.3, 1.0), (0.99, 1.0)):
        radii = default_radii(epsilon, widest)
        assert radii == sorted(set(radii))
        assert epsilon in radii
        assert radii[-1] == widest
        assert len(radii) < 25
    assert widest_radius("linf", (-1.0, 1.0), 9) == 2.0
    assert widest_radius("l2", (-1.0, 1.0), 9) == 6.0
    assert widest_radius("l1", (-1.0, 1.0), 9) == 18.0


def test_chance():
    assert chance(np.array([0, 1, 2, 1]), 3) == 0.5
    assert chance(np.array([0, 1, 2, 3]), 10) == 0.25
    assert chance(np.arange(10), 4000) == 0.1


def test_log(capsys):
    for verbose, lines in ((0, 0), ("auto", 0), (1, 3)):
        log = Log(verbose)
        with log.part("suite"):
            log.say("one line")
        with log.part("curve"):
            raise ValueError("first\n  second")
        assert len(capsys.readouterr().out.splitlines()) == lines + (verbose == 1)
        assert log.errors == ["curve: ValueError: first"]
        assert set(log.seconds) == {"suite", "curve"}
        assert log.total() >= sum(log.seconds.values())
    with pytest.raises(KeyboardInterrupt), log.part("transfer"):
        raise KeyboardInterrupt
    assert "transfer" in log.seconds
    keras.config.disable_interactive_logging()
    Log(1).say("silenced as Keras is")
    keras.config.enable_interactive_logging()
    assert capsys.readouterr().out.count("\n") == 1
    assert in_words(KeyError("a")) == "KeyError: 'a'"
    assert in_words(ValueError()) == "ValueError"
    assert len(in_words(ValueError("x" * 999))) < 320
