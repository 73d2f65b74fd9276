"""Whoever declared the range of the inputs once need not say it again."""

import keras
import numpy as np
import pytest

import keras_jsigr as kj
from keras_jsigr.evaluation.known_range import known_range

X = np.array([[150, 100], [101, 100], [90, 90], [108, 100]], "float32")
Y = np.array([1, 1, 0, 0])
TO_255 = (0.0, 255.0)


def net():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
    model.set_weights([np.array([[-0.3, 0.3], [-0.4, 0.4]]), np.array([70.0, -70.0])])
    return model


@pytest.fixture(name="robust")
def fixture_robust():
    return kj.harden(net(), input_range=(0, 255), verbose=0)


def test_the_range_of_hardened_models(robust):
    assert known_range(None, net(), robust) == TO_255
    assert known_range((-1, 300), robust) == (-1.0, 300.0)
    assert known_range(None, net(), len) == (0.0, 1.0)


def test_models_of_different_ranges_are_refused(robust):
    other = kj.harden(net(), verbose=0)
    with pytest.raises(ValueError, match="expected one range"):
        known_range(None, robust, other)
    assert known_range(TO_255, robust, other) == TO_255


def test_an_evaluation_takes_it(robust):
    common = {"epsilon": 2.0, "norm": "l2", "diagnostics": False, "attacks": ["pgd"]}
    report = kj.evaluate(robust, X, Y, **common)
    assert tuple(report.threat_model["input_range"]) == TO_255
    given = kj.evaluate(robust, X, Y, input_range=TO_255, **common)
    assert report.robust == given.robust
    with pytest.raises(ValueError, match="range"):
        kj.evaluate(kj.unwrap(robust), X, Y, **common)


def test_diagnostics_take_it(robust):
    found = kj.evaluation.diagnostics(robust, X, Y, epsilon=2.0)
    assert [f.rule for f in found]


def test_maps_and_transfer_take_it(robust):
    models = {"plain": net(), "robust": robust}
    report = kj.evaluate_saliency(models, X, Y, epsilon=2.0, parts=["sparsity"])
    assert [each.title for each in report.reports] == list(models)
    records = kj.evaluation.transfer_matrix(models, X, Y, epsilons=[2.0])
    assert len(records) == 4
    with pytest.raises(ValueError, match="range"):
        kj.evaluation.transfer_matrix({"plain": net()}, X, Y, epsilons=[2.0])
