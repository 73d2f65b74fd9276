"""DeepFool against its formulas in NumPy and on linear models."""

import numpy as np
import pytest
import tensorflow as tf

from keras_jsigr.attacks.minimum_norm.deepfool import DeepFool

RNG = np.random.default_rng(3)
W1, W2 = RNG.normal(size=(8, 16)) / 2, RNG.normal(size=(16, 6))
X = RNG.uniform(0.4, 0.6, (10, 8))


def network(x):
    return tf.tanh(x @ tf.constant(W1, x.dtype)) @ tf.constant(W2, x.dtype)


Y = np.argmax(network(X), 1)


def logits_and_jacobian(x):
    hidden = np.tanh(x @ W1)
    return hidden @ W2, (W1 * (1 - hidden**2)) @ W2


def reference(x, norm, candidates, input_range=(-9, 9), overshoot=0.02, steps=50):
    """Algorithm 2 of the paper for one input, with the overshoot in every step.

    A step is longer by 1e-4 widths of the range, as in the authors' implementation,
    and a point counts from a margin of 1e-5 of the largest logit on.
    """
    low, high = input_range
    z, _ = logits_and_jacobian(x)
    order = np.argsort(-z)
    label, rivals = order[0], order[1 : candidates + 1]
    total, point = np.zeros_like(x), x
    for _ in range(steps):
        z, jacobian = logits_and_jacobian(point)
        margin = np.delete(z, label).max() - z[label]
        safe = 1e-5 * np.abs(z).max()
        if margin > safe:
            return point
        ways, sizes = [], []
        for k in rivals:
            w = jacobian[:, k] - jacobian[:, label]
            f = z[k] - z[label] - safe
            slope = np.linalg.norm(w, 2 if norm == "l2" else 1)
            direction = w / slope if norm == "l2" else np.sign(w)
            sizes.append(abs(f) / slope)
            ways.append(-np.sign(f) * direction * (sizes[-1] + 1e-4 * (high - low)))
        total = total + ways[int(np.argmin(sizes))]
        point = np.clip(x + (1 + overshoot) * total, low, high)
    return x


@pytest.mark.parametrize(
    ("norm", "candidates"), [("l2", 1), ("l2", 3), ("linf", 3), ("linf", 10)]
)
def test_numpy_reference(norm, candidates):
    attack = DeepFool(
        norm=norm, candidates=candidates, search_passes=0, input_range=(-9, 9)
    )
    expected = [reference(x, norm, candidates) for x in X]
    np.testing.assert_allclose(attack(network, X, Y), expected, atol=1e-5)


def test_numpy_reference_at_the_ends_of_the_range():
    x = np.round(X)
    y = np.argmax(network(x), 1)
    attack = DeepFool(candidates=3, search_passes=0)
    expected = np.array([reference(row, "l2", 3, (0, 1)) for row in x])
    assert ((expected == 0) | (expected == 1)).any()
    assert (np.argmax(network(expected), 1) != y).mean() > 0.5
    np.testing.assert_allclose(attack(network, x, y), expected, atol=1e-5)


def test_several_steps_are_needed():
    """Or the reference would tell nothing about the loop."""
    one = [np.abs(reference(x, "l2", 3, steps=1) - x).max() > 0 for x in X]
    assert not all(one)


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_linear_model(norm):
    w = RNG.normal(size=(30, 5)).astype("float32")
    x = RNG.uniform(0.4, 0.6, (15, 30)).astype("float32")
    z = x @ w
    y = z.argmax(1)
    x_adv = DeepFool(norm=norm)(lambda x: x @ tf.constant(w), x, y)
    gaps, slopes = [], []
    for k in range(5):
        gaps.append(z[range(15), y] - z[:, k])
        dual = 2 if norm == "l2" else 1
        slopes.append(np.linalg.norm(w[:, k][:, None] - w[:, y], dual, axis=0))
    with np.errstate(invalid="ignore"):
        best = np.nanmin(np.array(gaps) / np.array(slopes), axis=0)
    distance = np.linalg.norm(x_adv - x, 2 if norm == "l2" else np.inf, axis=1)
    assert ((x_adv @ w).argmax(1) != y).all()
    assert (distance >= best - 1e-6).all()
    np.testing.assert_allclose(distance, best, atol=1e-4)


def test_overshoot_is_taken_back():
    far = DeepFool(search_passes=0, overshoot=0.5)(network, X, Y) - X
    near = DeepFool(overshoot=0.5)(network, X, Y) - X
    sizes = np.linalg.norm(near, axis=1) / np.linalg.norm(far, axis=1)
    assert (sizes < 0.85).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"norm": "l1"}, "`norm`"),
        ({"candidates": 0}, "`candidates` is out of range"),
        ({"overshoot": -0.1}, "`overshoot` is out of range"),
        ({"targeted": True}, "no targeted form: got targeted=True"),
    ],
)
def test_refused_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        DeepFool(**settings)
