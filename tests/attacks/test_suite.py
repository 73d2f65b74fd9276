"""Suites: who gets which examples, crashes, the worst case, and the standard one."""

import json
from dataclasses import dataclass
from typing import ClassVar

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_jsigr.attacks import FGSM, PGD, Attack, AttackSuite, AutoAttack
from keras_jsigr.attacks.norms import is_feasible

# One feature and two classes: class 1 wherever it is above one half.
X = np.array([[0.1], [0.2], [0.3], [0.4], [0.45], [0.6]], "float32")


Y = np.zeros(6, int)


def model(x):
    return tf.concat([tf.zeros_like(x), x - 0.5], axis=1)


@dataclass(frozen=True, kw_only=True)
class Push(Attack):
    """Move every input up by a given length, and note which were given."""

    push: float = 0.0
    label: str = "Push"
    calls: ClassVar[list] = []

    @property
    def name(self):
        return self.label

    def search(self, context):
        return context.x + self.push, tf.ones(tf.shape(context.x)[:1], tf.bool)

    def __call__(self, model, x, y=None, *, epsilons=None, region=None):
        self.calls.append((self.label, np.asarray(x).ravel().round(3).tolist(), region))
        if self.label == "crash":
            raise RuntimeError("out of luck")
        x_adv = super().__call__(model, x, y, epsilons=epsilons, region=region)
        if self.label == "one far":
            x_adv[0] += 1.0
        return x_adv


def push(length, label="Push", epsilon=0.35):
    return Push(epsilon=epsilon, push=length, label=label)


@pytest.fixture(autouse=True)
def _no_calls():
    Push.calls.clear()


def test_each_attack_gets_what_is_still_right():
    suite = AttackSuite([push(0.15, "a"), push(0.05, "b"), push(0.25, "c")])
    outcomes = list(suite.run(model, X, Y))
    assert [call[:2] for call in Push.calls] == [
        ("a", pytest.approx([0.1, 0.2, 0.3, 0.4, 0.45])),  # 0.6 is wrong already.
        ("b", pytest.approx([0.1, 0.2, 0.3])),
        ("c", pytest.approx([0.1, 0.2, 0.3])),
    ]
    assert [o.name for o in outcomes] == ["a", "b", "c"]
    assert [o.rows.tolist() for o in outcomes] == [
        [0, 1, 2, 3, 4],
        [0, 1, 2],
        [0, 1, 2],
    ]
    assert [o.broken.tolist() for o in outcomes] == [
        [False, False, False, True, True],
        [False, False, False],
        [False, False, True],
    ]
    assert outcomes[2].attack.label == "c"
    np.testing.assert_allclose(outcomes[2].x_adv, X[:3] + 0.25, atol=1e-6)
    assert all(o.error is None and o.seconds >= 0 for o in outcomes)


def test_worst_case():
    suite = AttackSuite([push(0.15), push(0.05), push(0.25)])
    x_adv = suite(model, X, Y)
    expected = [[0.1], [0.2], [0.55], [0.55], [0.6], [0.6]]
    np.testing.assert_allclose(x_adv, expected, atol=1e-6)
    tensor = suite(model, tf.constant(X), Y)
    assert tf.is_tensor(tensor)
    np.testing.assert_array_equal(tensor, x_adv)
    rows = suite(model, X, np.eye(2)[Y])
    np.testing.assert_array_equal(rows, x_adv)
    # Its own decisions: 0.6 is right as class 1 and cannot be pushed down.
    np.testing.assert_array_equal(suite(model, X), x_adv)


def test_a_crash_is_noted_and_the_others_go_on():
    suite = AttackSuite([push(0.15), push(0.0, "crash"), push(0.25)])
    first, second, third = suite.run(model, X, Y)
    assert first.error is None
    assert second.error == "RuntimeError: out of luck"
    assert second.rows.tolist() == third.rows.tolist() == [0, 1, 2]
    assert not second.broken.any()
    np.testing.assert_array_equal(second.x_adv, X[:3])
    assert third.broken.tolist() == [False, False, True]
    with pytest.warns(RuntimeWarning, match="crash: RuntimeError: out of luck"):
        x_adv = suite(model, X, Y)
    np.testing.assert_allclose(x_adv[2], 0.55, atol=1e-6)
    with pytest.raises(RuntimeError, match="No attack of the suite worked"):
        AttackSuite([push(0.0, "crash")])(model, X, Y)


def test_points_outside_do_not_count():
    suite = AttackSuite([push(0.15, "wide", epsilon=0.1), push(0.08, epsilon=0.1)])
    wide, narrow = suite.run(model, X, Y)
    assert "5 of 5 points" in wide.error
    assert not wide.broken.any()
    assert narrow.rows.tolist() == [0, 1, 2, 3, 4]
    assert narrow.broken.tolist() == [False, False, False, False, True]


def test_points_that_count_are_kept_beside_others():
    """Also by a suite of one attack: it did not crash."""
    suite = AttackSuite([push(0.15, "one far", epsilon=0.2)])
    with pytest.warns(RuntimeWarning, match="1 of 5 points"):
        x_adv = suite(model, X, Y)
    (alone,) = suite.run(model, X, Y)
    assert alone.broken.any()
    np.testing.assert_array_equal(x_adv[:5][alone.broken], alone.x_adv[alone.broken])


def test_nothing_left():
    suite = AttackSuite([push(0.3, epsilon=0.5), push(0.2, "idle", epsilon=0.5)])
    first, idle = suite.run(model, X[3:], Y[3:])
    assert first.broken.all()
    assert idle.rows.tolist() == []
    assert idle.x_adv.shape == (0, 1)
    assert idle.broken.shape == (0,)
    assert idle.error is None
    assert [call[0] for call in Push.calls] == ["Push"]


def test_attacks_run_when_they_are_asked_for():
    outcomes = AttackSuite([push(0.15, "a"), push(0.05, "b")]).run(model, X, Y)
    assert Push.calls == []
    next(outcomes)
    assert [call[0] for call in Push.calls] == ["a"]


def test_region_follows_the_rows():
    region = (X > 0.35).astype("float32")
    list(AttackSuite([push(0.15), push(0.05)]).run(model, X, Y, region=region))
    assert [call[2].ravel().tolist() for call in Push.calls] == [
        [0, 0, 0, 1, 1],
        [0, 0, 0],
    ]


def test_radii():
    suite = AttackSuite([FGSM(epsilon=0.12), PGD(epsilon=0.12, steps=3)])
    small, large = suite(model, X, Y, epsilons=[0.07, 0.12])
    np.testing.assert_array_equal(large, suite(model, X, Y))
    np.testing.assert_array_equal(small[3], X[3])
    assert large[3] > 0.5
    assert suite.at(0.2).epsilon == 0.2
    assert [a.epsilon for a in suite.at(0.2).attacks] == [0.2, 0.2]


def test_settings_round_trip():
    suite = AttackSuite([FGSM(epsilon=0.1, norm="l2"), PGD(epsilon=0.1, norm="l2", seed=3)])
    config = json.loads(json.dumps(suite.get_config()))
    assert AttackSuite.from_config(config) == suite
    assert (suite.epsilon, suite.norm, suite.input_range) == (0.1, "l2", None)
    saved = keras.saving.serialize_keras_object(suite)
    assert keras.saving.deserialize_keras_object(saved) == suite


def test_refused_attacks():
    for attacks, error, message in [
        ([], ValueError, "empty"),
        (["fgsm"], TypeError, "expected a list of attacks"),
        (FGSM(epsilon=0.1), TypeError, "expected a list of attacks"),
        ([FGSM(epsilon=0.1, targeted=True)], ValueError, "targeted"),
        ([FGSM(epsilon=0.1), FGSM(epsilon=0.2)], ValueError, "differ in `epsilon`"),
        (
            [FGSM(epsilon=0.1), FGSM(epsilon=0.1, norm="l2")],
            ValueError,
            "differ in `norm`",
        ),
    ]:
        with pytest.raises(error, match=message):
            AttackSuite(attacks)


def test_bad_data_is_refused_before_any_attack():
    suite = AttackSuite([push(0.1)])
    with pytest.raises(ValueError, match="leaves the input range"):
        suite.run(model, X + 1, Y)
    with pytest.raises(ValueError, match="does not match"):
        suite.run(model, X, Y[:2])
    with pytest.raises(ValueError, match="region"):
        suite.run(model, X, Y, region=np.ones((3, 3)))
    assert Push.calls == []


def test_inside():
    x = np.full((4, 2), 0.5)
    delta = np.array([[0.1, 0.1], [0.2, 0.0], [0.1, np.nan], [0.6, 0.0]])
    x_adv = x + delta
    for norm, expected in (
        ("linf", [True, False, False, False]),
        ("l2", [True, False, False, False]),
        ("l1", [False, False, False, False]),
    ):
        assert is_feasible(x_adv, x, 0.15, norm, (0.0, 1.0)).tolist() == expected
    assert is_feasible(x_adv, x, np.inf, "l2", (0.0, 1.0)).tolist() == [
        True,
        True,
        False,
        False,
    ]
    with pytest.raises(ValueError, match="one point per example"):
        is_feasible(x_adv[:2], x, 0.1, "l2", (0.0, 1.0))


def test_standard():
    for norm in ["linf", "l2", "l1"]:
        suite = AutoAttack(0.1, norm=norm, input_range=(-1, 1), seed=5, batch_size=32)
        assert [a.name for a in suite.attacks] == [
            "APGD-CE",
            "APGD-T",
            "FAB-T",
            "Square",
        ]
        for attack in suite.attacks:
            assert (attack.epsilon, attack.norm, attack.seed) == (0.1, norm, 5)
            assert (attack.input_range, attack.batch_size) == ((-1.0, 1.0), 32)
        assert [getattr(a, "steps", None) for a in suite.attacks] == [
            100,
            100,
            100,
            None,
        ]
        apgd, targeted, fab, _ = suite.attacks
        of_the_authors = (5, 1, 5) if norm == "l1" else (1, 1, 9)
        assert (
            apgd.restarts,
            targeted.restarts,
            targeted.target_classes,
        ) == of_the_authors
        assert (fab.restarts, fab.target_classes) == (1, 9)
        assert suite.attacks[3].queries == 5000
        json.dumps(suite.get_config())


@pytest.mark.slow
def test_standard_finds_the_optimum_of_a_linear_model():
    w = np.random.default_rng(5).normal(size=(6, 4)).astype("float32")
    x = np.random.default_rng(6).uniform(0.4, 0.6, (16, 6)).astype("float32")

    def linear(x):
        return (x - 0.5) @ w

    z = linear(x)
    y = np.argmax(z, axis=1)
    distance = np.full(len(x), np.inf)
    for t in range(4):
        gap = z[np.arange(len(x)), y] - z[:, t]
        slope = np.abs(w[:, t] - w[:, y].T).sum(1)
        distance = np.where(t == y, distance, np.minimum(distance, gap / (slope + 1e-9)))
    epsilon = float(np.median(distance))
    suite = AutoAttack(epsilon, verbose=0)
    # The others would take thousands of steps for those that none can fool.
    outcomes = list(AttackSuite(suite.attacks[:2]).run(linear, x, y))
    assert [o.error for o in outcomes] == [None] * 2
    fooled = np.zeros(len(x), bool)
    for outcome in outcomes:
        fooled[outcome.rows[outcome.broken]] = True
    assert fooled[distance < 0.98 * epsilon].all()
    assert not fooled[distance > epsilon * (1 + 1e-5)].any()
