"""Each demonstrator of masking makes its rules fire."""

import keras
import numpy as np
import pytest

from keras_jsigr.attacks import FGSM, PGD
from keras_jsigr.evaluation.masking import demonstrators, diagnose, diagnostics
from keras_jsigr.evaluation.masking.rules import RULES

pytestmark = pytest.mark.slow


@pytest.fixture
def suspects(monkeypatch):
    """Run some of the rules and return those that fire."""

    def run(model, x, y, rules, **settings):
        with monkeypatch.context() as patch:
            patch.setattr(diagnose, "RULES", {name: RULES[name] for name in rules})
            findings = diagnostics(model, x, y, verbose=0, **settings)
        for finding in findings:
            assert finding.status != "skipped", finding.says
            assert (finding.status == "suspect") == (finding.advice != "")
        return [f.rule for f in findings if f.status == "suspect"]

    return run


def accuracy(model, x, y):
    return (np.argmax(model(x), -1) == y).mean()


def test_temperature(honest, test_set, suspects):
    masked = demonstrators.temperature_scaled(honest["plain"])
    rules = ["zero_gradients", "softmax_outputs", "randomness", "logit_scale"]
    assert suspects(masked, *test_set, rules, epsilon=0.1) == [
        "zero_gradients",
        "logit_scale",
    ]
    # The attacks of the package are not taken in.
    x, y = test_set
    attack = PGD(epsilon=0.1, verbose=0)
    ours, plain = attack(masked, x, y), attack(honest["plain"], x, y)
    assert abs(accuracy(masked, ours, y) - accuracy(masked, plain, y)) < 0.03


def test_quantized_inputs(honest, test_set, suspects):
    masked = demonstrators.quantized_inputs(honest["plain"])
    rules = ["zero_gradients", "black_box_beats_white_box", "epsilon_curve", "noise"]
    assert suspects(masked, *test_set, rules, epsilon=0.1) == rules


def test_randomized(honest, test_set, suspects):
    masked = demonstrators.randomized(honest["plain"])
    rules = ["zero_gradients", "randomness", "single_step_beats_iterative"]
    assert suspects(masked, *test_set, rules, epsilon=0.1) == rules[1:]


def test_catastrophic_overfitting(make_net, data, suspects):
    x, y = data.x_train[:4000], data.y_train[:4000]
    net = demonstrators.train_single_step(make_net(28), x, y, epsilon=0.3)
    x, y = data.x_test[:300], data.y_test[:300]
    assert accuracy(net, FGSM(epsilon=0.3)(net, x, y), y) > 0.25
    assert accuracy(net, PGD(epsilon=0.3, verbose=0)(net, x, y), y) < 0.03
    rules = ["zero_gradients", "single_step_beats_iterative", "local_linearity"]
    assert suspects(net, x, y, rules, epsilon=0.3) == ["local_linearity"]


def test_bad_settings():
    net = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
    with pytest.raises(ValueError, match="`factor`"):
        demonstrators.temperature_scaled(net, 0.0)
    with pytest.raises(ValueError, match="`levels`"):
        demonstrators.quantized_inputs(net, 1)
    with pytest.raises(ValueError, match="`stddev`"):
        demonstrators.randomized(net, -1.0)
    with pytest.raises(ValueError, match="`epsilon`"):
        demonstrators.train_single_step(net, np.ones((4, 2)), np.ones(4), epsilon=0.0)


def test_softmax_head_is_trained_with_its_loss():
    keras.utils.set_random_seed(0)
    head = keras.layers.Dense(2, activation="softmax")
    net = keras.Sequential([keras.Input((2,)), head])
    x = np.random.default_rng(0).uniform(size=(256, 2)).astype("float32")
    settings = {"epsilon": 0.01, "learning_rate": 0.1, "batch_size": 8, "epochs": 3}
    demonstrators.train_single_step(net, x, x.argmax(-1), **settings)
    assert accuracy(net, x, x.argmax(-1)) > 0.95
