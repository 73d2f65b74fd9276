import numpy as np
import pytest

from keras_jsigr.attacks.gradient.bim import BIM
from keras_jsigr.evaluation.interpretability.kept_label_pgd import KeptLabelPGD

W = np.random.default_rng(0).normal(size=(6, 3)).astype("float32")


def logits(x):
    return x @ W


@pytest.fixture
def x():
    return np.random.default_rng(1).uniform(0.3, 0.7, (40, 6)).astype("float32")


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_stops_where_the_class_would_be_lost(x, norm):
    y = logits(x).argmax(-1)
    epsilon = {"linf": 0.05, "l2": 0.1}[norm]
    settings = {"epsilon": epsilon, "norm": norm, "step_size": epsilon / 2}
    expected = x.copy()
    for steps in range(1, 4):
        # Not kept by the plain attack: its iterates, whether they fool or not.
        point = BIM(steps=steps, **settings)(logits, x, y)
        kept = logits(point).argmax(-1) == y
        expected[kept] = point[kept]
    found = KeptLabelPGD(steps=3, **settings)(logits, x, y)
    assert np.all(logits(found).argmax(-1) == y)
    safe = logits(BIM(steps=3, **settings)(logits, x, y)).argmax(-1) == y
    assert 5 < safe.sum() < 35
    # Where the plain attack succeeds, it returns a point that fools, and not its last.
    np.testing.assert_allclose(found[safe], expected[safe], atol=1e-6)
    order = {"linf": np.inf, "l2": 2}[norm]
    moved = np.linalg.norm(found - x, order, axis=1)
    assert np.all(moved <= epsilon * (1 + 1e-4))
    assert np.all(moved[safe] > epsilon / 2)
    assert np.mean(moved[~safe] > 0) > 0.3


def test_returns_the_input_where_the_first_step_loses_it():
    x = np.array([[0.5, 0.51]], "float32")
    found = KeptLabelPGD(epsilon=0.2, step_size=0.1)(lambda x: x, x, [1])
    np.testing.assert_array_equal(found, x)
