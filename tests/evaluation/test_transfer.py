"""Transfer between linear models, where it can be worked out, and its bookkeeping."""

import numpy as np
import pytest
import tensorflow as tf

from keras_jsigr.attacks import FGSM, MIFGSM, PGD
from keras_jsigr.evaluation.families import leave_one_family_out
from keras_jsigr.evaluation.store import Store
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
    records = transfer_matrix(
        MODELS, X, Y, attacks=[attack], epsilons=[EPSILON, 2 * EPSILON]
    )
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
    records = transfer_matrix(
        {"a": A, "near": NEAR}, X, Y, attacks=[weak, ONE], epsilons=[EPSILON]
    )
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
    words = r"FGSM on \w+ at 0.05: 7 of its points"
    with pytest.warns(RuntimeWarning, match=words):
        (record,) = transfer_matrix(
            {"near": NEAR, "a": A}, X, Y, attacks=[ONE], epsilons=[0.05], targets=["a"]
        )[:1]
    expected = known(NEAR, A)
    expected[:7] = A.right(X, Y)[:7]
    assert record.accuracy.correct == expected.sum()


def test_stored_cells(tmp_path, monkeypatch):
    settings = dict(attacks=[ONE], epsilons=[EPSILON])
    first = transfer_matrix(MODELS, X, Y, store=Store(tmp_path, {}), **settings)

    def never(*args, **kwargs):
        raise AssertionError("made again")

    monkeypatch.setattr(FGSM, "__call__", never)
    again = transfer_matrix(MODELS, X, Y, store=Store(tmp_path, {}), **settings)
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
        with pytest.raises(AssertionError, match="made again"):
            transfer_matrix(store=Store(tmp_path, {}), **arguments)


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


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"models": {}}, TypeError, "`models`"),
        ({"models": [A]}, TypeError, "`models`"),
        (
            {"models": {"a": A, "b": lambda x: x}},
            ValueError,
            "model 'b' has 10 classes",
        ),
        ({"models": {"a": A, "b": lambda x: x[:, 99:]}}, ValueError, "model 'b'"),
        ({"targets": ["b"]}, ValueError, "`targets`"),
        ({"labels": "mine"}, ValueError, "`labels`"),
        ({"attacks": []}, TypeError, "`attacks`"),
        ({"attacks": ["unheard"]}, ValueError, "Unknown `attack`"),
        ({"attacks": [FGSM(epsilon=1, norm="l2")]}, ValueError, "another threat model"),
        ({"epsilons": []}, ValueError, "`epsilons`"),
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
    ],
)
def test_bad_input(changes, error, message):
    arguments = {
        "models": MODELS,
        "x": X,
        "y": Y,
        "attacks": ["fgsm"],
        "epsilons": [0.1],
    }
    with pytest.raises(error, match=message):
        transfer_matrix(**{**arguments, **changes})
