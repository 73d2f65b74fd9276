"""The Jacobian norm: closed form, and the estimate for many classes."""

import numpy as np
import pytest

from keras_jsigr.callbacks.grid.jacobian_norm import (
    EXACT_CLASSES,
    PROJECTIONS,
    jacobian_norm_explainer,
)


@pytest.mark.parametrize("unit", [1.0, 255.0])
def test_linear_model(unit):
    w = np.random.default_rng(0).normal(size=(6, EXACT_CLASSES)).astype("float32")
    x = np.zeros((3, 6), "float32")
    norms = jacobian_norm_explainer(lambda x: x @ w, x, unit=unit)(x)
    np.testing.assert_allclose(norms, unit * np.linalg.norm(w), rtol=1e-5)


def test_depends_on_the_example():
    x = np.array([[1.0, 0.0], [2.0, 3.0]], "float32")
    norms = jacobian_norm_explainer(lambda x: x**2, x)(x)
    np.testing.assert_allclose(norms, 2.0 * np.linalg.norm(x, axis=1), rtol=1e-6)


def test_estimate_for_many_classes_is_unbiased():
    classes, examples = EXACT_CLASSES + 1, 400
    w = np.random.default_rng(0).normal(size=(6, classes)).astype("float32")
    x = np.zeros((examples, 6), "float32")
    estimate = jacobian_norm_explainer(lambda x: x @ w, x[:1], batch_size=examples)
    squares = estimate(x).astype("float64") ** 2
    error = squares.std() / np.sqrt(examples)
    assert abs(squares.mean() - np.sum(w.astype("float64") ** 2)) < 4.0 * error
    assert squares.std() < squares.mean() * np.sqrt(2.0 / PROJECTIONS)
    np.testing.assert_array_equal(estimate(x), estimate(x))
