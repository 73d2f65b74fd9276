"""Every golden attacked and evaluated: hardened, plain, and loaded from its export."""

import numpy as np
import pytest
import tensorflow as tf

import keras_jsigr as kj
from keras_jsigr import attacks

pytestmark = pytest.mark.slow

RADIUS = 0.1
SMALL = {"epsilon": RADIUS, "verbose": 0}


def attacked_input(golden):
    """Return the input under attack, and how to ask a model about it alone."""
    if not isinstance(golden.x, dict):
        return golden.x, lambda model: model
    tokens = tf.constant(golden.x["tokens"][:1])

    def ask(model):
        logits = getattr(model, "logits", model)
        return lambda image: logits(
            {"image": image, "tokens": tf.repeat(tokens, tf.shape(image)[0], axis=0)}
        )

    return golden.x["image"], ask


def decisions(model, x):
    x = tf.constant(x)
    logits = np.asarray(model.logits(x) if hasattr(model, "logits") else model(x))
    return (logits[:, 0] > 0).astype(int) if logits.shape[1] == 1 else logits.argmax(-1)


def assert_valid(x_adv, x):
    assert x_adv.shape == x.shape
    assert np.isfinite(x_adv).all()
    assert np.abs(x_adv - x).max() <= RADIUS + 1e-6
    assert x_adv.min() >= 0 - 1e-6
    assert x_adv.max() <= 1 + 1e-6


def test_standard_suite(golden):
    robust = golden.harden()
    x, ask = attacked_input(golden)
    model = ask(robust)
    suite = attacks.Suite(
        [
            attacks.APGD(steps=3, early_stop=True, **SMALL),
            attacks.APGDT(steps=2, target_classes=2, early_stop=True, **SMALL),
            attacks.FAB(steps=2, target_classes=2, **SMALL),
            attacks.Square(queries=6, **SMALL),
        ]
    )
    y = decisions(model, x)
    worst = x.copy()
    for outcome in suite.run(model, x, y):
        assert outcome.error is None
        assert_valid(outcome.x_adv, x[outcome.rows])
        worst[outcome.rows[outcome.broken]] = outcome.x_adv[outcome.broken]
    fooled = decisions(model, worst) != y
    assert np.array_equal(fooled, np.any(worst != x, axis=tuple(range(1, x.ndim))))


@pytest.mark.parametrize("golden", ["resnet", "mlp", "attention"], indirect=True)
def test_other_attacks(golden):
    robust = golden.harden()
    x = golden.x
    y = decisions(robust, x)
    for attack in (
        attacks.DeepFool(steps=3, **SMALL),
        attacks.TransferAttack(steps=2, nesterov=True, variance_samples=2, **SMALL),
        attacks.SPSA(steps=2, samples=4, **SMALL),
        attacks.UniformNoise(draws=3, **SMALL),
        attacks.HopSkipJump(queries=200, **SMALL),
    ):
        assert_valid(attack(robust, x, y), x)


def test_evaluated(golden):
    robust = golden.harden()
    x, ask = attacked_input(golden)
    y = golden.y
    report = kj.evaluate(
        ask(robust),
        x,
        y,
        epsilon=RADIUS,
        attacks=["fgsm", "bim"],
        epsilons=[RADIUS],
        surrogates={"plain": ask(golden.make())},
        transfer_attacks=["mi-fgsm"],
        diagnostics=False,
        examples=1,
        verbose=0,
    )
    assert report.errors == []
    right = decisions(ask(robust), x) == y
    assert report.clean.correct == right.sum()
    assert report.robust.correct <= report.clean.correct
    assert report.curve[0].accuracy == report.clean
    assert {record.epsilon for record in report.transfer} == {RADIUS, 2 * RADIUS}


def test_attacked_after_export(golden, tmp_path):
    if isinstance(golden.x, dict):
        pytest.skip("an attack changes one input; the export takes both by name")
    robust = golden.harden()
    robust.export(tmp_path / "1", verbose=0)
    loaded = tf.saved_model.load(tmp_path / "1")  # its signatures need it alive
    served = loaded.signatures["logits"]
    name = next(iter(served.structured_input_signature[1]))
    attack = attacks.PGD(steps=3, random_start=False, **SMALL)
    expected = attack(robust, golden.x, golden.y)
    x_adv = attack(lambda x: served(**{name: x})["logits"], golden.x, golden.y)
    # The sign of a gradient of rounding size may differ between both graphs.
    assert np.mean(np.abs(x_adv - expected) > 1e-5) < 0.01
