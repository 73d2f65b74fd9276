"""Points where the model names no class, and models that rule one out."""

import numpy as np
import pytest
import tensorflow as tf

from keras_jsigr import attacks
from keras_jsigr.attacks.search.problem import Problem

X = np.full((6, 2), 0.5, "float32")
NAN = float("nan")
QUICK = {"epsilon": 0.2}
ATTACKS = [
    attacks.PGD(steps=4, random_start=False, **QUICK),
    attacks.APGD(steps=10, **QUICK),
    attacks.APGDT(steps=10, **QUICK),
    attacks.FAB(steps=10, **QUICK),
    attacks.CarliniWagner(epsilon=0.4, steps=40, searches=4, learning_rate=0.1),
    attacks.Square(queries=30, **QUICK),
    attacks.UniformNoise(draws=30, **QUICK),
    attacks.HopSkipJump(queries=300, norm="linf"),
]


def model(label):
    """Right up to 0.55, and NaN beyond; wrong nowhere."""

    def logits(x):
        margin = 5.0 - 2.0 * x[:, :1]
        other = tf.zeros_like(margin)
        z = tf.concat([other, margin] if label else [margin, other], axis=1)
        return tf.where(x[:, :1] > 0.55, NAN, z)

    return logits


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The model's gradient was NaN")
@pytest.mark.parametrize("attack", ATTACKS, ids=lambda a: a.name)
@pytest.mark.parametrize("label", [0, 1])
def test_no_answer_fools_whatever_the_label(attack, label):
    x_adv = attack(model(label), X, np.full(6, label))
    assert np.isfinite(x_adv).all()
    assert np.isnan(model(label)(x_adv)).any(axis=1).all()


@pytest.mark.filterwarnings("ignore:The model's gradient was NaN")
@pytest.mark.parametrize("method", [attacks.PGD, attacks.UniformNoise])
@pytest.mark.parametrize("goal", [0, 1])
def test_no_answer_reaches_no_class(method, goal):
    """The goal is met on a strip that lies before the NaN, seen from the left."""

    def logits(x):
        t = x[:, :1]
        other = 0.1 - tf.abs(t - 0.65)
        z = tf.concat([other, -other] if goal == 0 else [-other, other], axis=1)
        return tf.where(t > 0.7, NAN, z)

    settings = {"draws": 50} if method is attacks.UniformNoise else {"steps": 8}
    attack = method(epsilon=0.3, targeted=True, **settings)
    x_adv = attack(logits, X, np.full(6, goal))
    assert (np.argmax(logits(x_adv), axis=1) == goal).all()
    assert np.isfinite(logits(x_adv)).all()


@pytest.mark.parametrize("targeted", [False, True])
def test_decisions_of_hopskipjump(targeted):
    attack = attacks.HopSkipJump(targeted=targeted)
    z, rows = tf.constant([[NAN, 0.0], [0.0, NAN]]), tf.eye(2)[:1]
    for targets in (rows, rows[:, ::-1]):
        problem = Problem(z, tf.repeat(targets, 2, axis=0))
        fools = attack.margin(z, problem).numpy() > 0
        assert fools.tolist() == [not targeted] * 2


@pytest.mark.slow
@pytest.mark.parametrize(
    "attack",
    [
        attacks.PGD(steps=5, random_start=False, **QUICK),
        attacks.APGD(steps=10, loss="dlr", **QUICK),
        attacks.APGDT(steps=10, target_classes=1, **QUICK),
        attacks.SIFGSM(scales=2, **QUICK),
        attacks.Square(queries=30, **QUICK),
    ],
    ids=lambda a: a.name,
)
def test_a_class_ruled_out_changes_nothing(attack):
    w = np.random.default_rng(2).normal(size=(5, 4)).astype("float32")

    def plain(x):
        return tf.tanh((x - 0.5) @ w)

    def ruled_out(x):
        z = plain(x)
        return tf.concat([z, tf.fill([tf.shape(z)[0], 1], float("-inf"))], axis=1)

    x = np.random.default_rng(3).uniform(0.3, 0.7, (20, 5)).astype("float32")
    y = np.argmax(plain(x), axis=1)
    x_adv = attack(ruled_out, x, y)
    np.testing.assert_allclose(x_adv, attack(plain, x, y), atol=1e-5)
    assert (np.argmax(plain(x_adv), axis=1) != y).any()
    (outcome,) = attacks.Suite([attack]).run(ruled_out, x, y)
    assert len(outcome.rows) == 20
    assert outcome.broken.any()
