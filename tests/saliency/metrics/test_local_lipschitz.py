import numpy as np
import pytest
import tensorflow as tf

from keras_jsigr.saliency import gradient_explainer
from keras_jsigr.saliency.metrics import local_lipschitz


def test_the_gradient_map_of_a_linear_model_does_not_move(rng):
    w = rng.normal(size=(6, 3)).astype("float32")
    x = rng.random((4, 6), dtype=np.float32)
    explain = gradient_explainer(lambda x: x @ w, x[:1], score="logit")
    targets = tf.one_hot([0, 1, 2, 0], 3)
    found = local_lipschitz(lambda x: explain.core(x, targets), x, radius=0.1)
    np.testing.assert_array_equal(found, np.zeros(4))


def test_a_turning_map_has_the_constant_of_its_angle():
    # The map (cos a x, sin a x) turns by a radians per unit: chords over distances
    # reach a, and stay below it.
    a = 3.0
    x = np.full((5, 1), 0.5, "float32")

    def turning(x):
        return tf.concat([tf.cos(a * x), tf.sin(a * x)], axis=1)

    found = local_lipschitz(turning, x, radius=0.05, samples=50).numpy()
    assert np.all(found < a * (1 + 1e-4))
    np.testing.assert_allclose(found, np.full(5, a), rtol=1e-3)
    scaled = local_lipschitz(lambda x: 9 * turning(x), x, radius=0.05, samples=50)
    np.testing.assert_allclose(scaled, found, rtol=1e-4)


def test_points_stay_in_the_box_and_the_range():
    seen = []

    def remember(x):
        seen.append(x.numpy())
        return x + 1.0

    x = np.array([[0.0, 0.5], [1.0, 0.02]], "float32")
    local_lipschitz(remember, x, radius=0.1, samples=30)
    points = np.stack(seen[1:])
    assert points.shape == (30, 2, 2)
    assert points.min() >= 0.0
    assert points.max() <= 1.0
    away = np.abs(points - x).max(0)
    assert np.all(away <= 0.1 + 1e-6)
    assert np.all(away > 0.08)


def test_more_points_find_at_least_as_much(rng):
    x = rng.random((20, 3), dtype=np.float32)
    few, many = (
        local_lipschitz(lambda x: x**2 + 0.1, x, radius=0.1, samples=n).numpy()
        for n in (2, 20)
    )
    assert np.all(many >= few)
    assert many.mean() > few.mean()


def test_zero_maps_are_stable():
    found = local_lipschitz(tf.zeros_like, np.ones((2, 3), "float32"), radius=0.1)
    np.testing.assert_array_equal(found, [0.0, 0.0])


def test_settings_are_checked():
    x = np.ones((1, 2), "float32")
    with pytest.raises(ValueError, match="positive number in input units"):
        local_lipschitz(tf.identity, x, radius=0.0)
    with pytest.raises(ValueError, match="positive integer"):
        local_lipschitz(tf.identity, x, radius=0.1, samples=0)
