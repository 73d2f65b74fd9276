"""Patches: the best one of a linear model, and nothing beside it."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_jsigr.attacks.regions.patch import Patch
from keras_jsigr.attacks.regions.patch_place import best_corner, random_corner

RNG = np.random.default_rng(14)
SHAPE = (6, 9, 2)
W = RNG.normal(size=(*SHAPE, 2))
X = RNG.uniform(size=(7, *SHAPE)).astype("float32")
Y = np.arange(7) % 2


def linear(x):
    return tf.tensordot(tf.cast(x, tf.float32), tf.constant(W, tf.float32), 3)


def downhill(y):
    return W[..., 1 - y] - W[..., y]


def best_patch(x, y, side, low, high, places=None):
    """Try every place; on a linear model each pixel goes to one end of the range."""
    w, best = downhill(y), (-np.inf, None)
    if places is None:
        places = np.ndindex(SHAPE[0] - side + 1, SHAPE[1] - side + 1)
    for row, column in places:
        part = np.s_[row : row + side, column : column + side]
        point = x.copy()
        point[part] = np.where(w[part] > 0, high, low)
        best = max(best, (np.sum(w * (point - x)), point), key=lambda pair: pair[0])
    return best[1]


def sides(changed):
    rows, columns = np.any(changed, axis=(1, 2)), np.any(changed, axis=(0, 2))
    return tuple(np.ptp(np.flatnonzero(line)) + 1 for line in (rows, columns))


@pytest.mark.parametrize(
    ("low", "high", "loss"), [(0, 1, "cross_entropy"), (-1, 3, "margin")]
)
def test_optimum_of_a_linear_model(low, high, loss):
    x = low + (high - low) * X
    attack = Patch(size=3, input_range=(low, high), loss=loss, steps=20)
    x_adv = attack(linear, x, Y)
    for image, y, result in zip(x, Y, x_adv, strict=True):
        expected = best_patch(image, y, 3, low, high)
        np.testing.assert_allclose(result, expected, atol=1e-5)
        assert sides(result != image) == (3, 3)


def test_targeted_and_by_size():
    x_adv = Patch(size=0.5, targeted=True, steps=20)(linear, X, 1 - Y)
    for image, y, result in zip(X, Y, x_adv, strict=True):
        expected = best_patch(image, y, 3, 0.0, 1.0)
        np.testing.assert_allclose(result, expected, atol=1e-5)


def test_fixed_place():
    x_adv = Patch(size=2, location=(4, 7), steps=20)(linear, X, Y)
    for image, y, result in zip(X, Y, x_adv, strict=True):
        expected = best_patch(image, y, 2, 0.0, 1.0, [(4, 7)])
        np.testing.assert_allclose(result, expected, atol=1e-5)


def test_random_places():
    def run(restarts):
        attack = Patch(size=2, location="random", restarts=restarts, steps=10)
        result = attack(linear, X, Y)
        np.testing.assert_array_equal(attack(linear, X, Y), result)
        return result

    def gain(x_adv):
        w = np.stack([downhill(y) for y in Y])
        return np.sum(w * (x_adv - X), axis=(1, 2, 3))

    one, twenty = run(1), run(20)
    for image, result in zip(X, twenty, strict=True):
        assert sides(result != image) == (2, 2)
    # The first try is the same; those won already may keep a weaker one.
    assert (gain(twenty) >= gain(one) - 1e-4).all()
    assert (gain(twenty) > gain(one) + 0.1).any()
    best = [best_patch(x, y, 2, 0.0, 1.0) for x, y in zip(X, Y, strict=True)]
    assert (gain(twenty) <= gain(np.stack(best)) + 1e-4).all()


def test_region_keeps_the_patch_out():
    region = np.ones(SHAPE[:2])
    region[:, :5] = 0
    x_adv = Patch(size=3, steps=20)(linear, X, Y, region=region)
    places = [(row, column) for row in range(4) for column in range(3, 7)]
    for image, y, result in zip(X, Y, x_adv, strict=True):
        np.testing.assert_array_equal(result[:, :5], image[:, :5])
        # A window may lie across the edge, with its inner columns only.
        w = downhill(y) * region[..., None]
        gains = np.where(w > 0, w * (1 - image), -w * image).sum(axis=2)
        best = max(gains[r : r + 3, c : c + 3].sum() for r, c in places)
        assert np.sum(w * (result - image)) == pytest.approx(best, abs=1e-4)


def test_inside_and_one_trace():
    runs = []

    def model(x):
        runs.append(1)
        return tf.tanh(linear(x))

    attack = Patch(size=3, steps=5, restarts=2)
    first = attack(model, X, Y)
    count = len(runs)
    attack(model, X[:2], Y[:2])
    assert len(runs) == count
    assert first.min() >= 0.0
    assert first.max() <= 1.0


def test_corners():
    gain = RNG.uniform(size=(4, 7, 5)).astype("float32")
    windows = np.lib.stride_tricks.sliding_window_view(gain, (3, 3), axis=(1, 2))
    sums = windows.sum(axis=(3, 4)).reshape(4, -1)
    expected = np.stack(np.unravel_index(sums.argmax(1), (5, 3)), axis=1)
    np.testing.assert_array_equal(best_corner(tf.constant(gain), 3), expected)
    places = random_corner(tf.constant([1, 2]), (2, 1), 6000).numpy()
    _, counts = np.unique(places, axis=0, return_counts=True)
    assert len(counts) == 6
    assert (np.abs(counts / 6000 - 1 / 6) < 5 * np.sqrt(5 / 36 / 6000)).all()


def test_settings():
    for location in ("gradient", "random", [2, 3]):
        attack = Patch(size=0.25, location=location, input_range=(0, 255))
        config = json.loads(json.dumps(attack.get_config()))
        assert Patch.from_config(config) == attack
        assert eval(repr(attack)) == attack
        serialized = keras.saving.serialize_keras_object(attack)
        assert keras.saving.deserialize_keras_object(serialized) == attack
        assert attack.epsilon == 255.0


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"size": 0}, ValueError, "`size`"),
        ({"size": 1.5}, ValueError, r"`size` .* expected a share in \(0, 1\]"),
        ({"size": "5"}, TypeError, "`size`"),
        ({"size": 3, "location": "center"}, ValueError, "Unknown `location`"),
        ({"size": 3, "location": (-1, 0)}, ValueError, "`location`"),
        ({"size": 3, "steps": 0}, ValueError, "`steps`"),
        ({"size": 3, "restarts": 0}, ValueError, "`restarts`"),
        ({"size": 3, "step_size": 0}, ValueError, "`step_size`"),
        ({"size": 3, "epsilon": 0.1}, TypeError, "epsilon"),
        ({}, TypeError, "size"),
    ],
)
def test_refused_settings(settings, error, message):
    with pytest.raises(error, match=message):
        Patch(**settings)


def test_refused_calls():
    with pytest.raises(ValueError, match=r"does not fit: got side 7 .* on 6 x 9"):
        Patch(size=7)(linear, X, Y)
    with pytest.raises(ValueError, match=r"got side 3 at \(4, 0\)"):
        Patch(size=3, location=(4, 0))(linear, X, Y)
    with pytest.raises(ValueError, match="A patch needs images"):
        Patch(size=1)(lambda x: x, X[:, 0, 0], Y)
    with pytest.raises(ValueError, match="A patch has no radius"):
        Patch(size=3)(linear, X, Y, epsilons=[0.1])
