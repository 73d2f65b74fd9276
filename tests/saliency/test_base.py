"""None"""

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.special import expit, log_expit, logsumexp, rel_entr, softmax

from keras_jsigr.saliency import (
    change_score,
    gradient_explainer,
    gradient_map,
    input_gradient,
    probability_drop,
    sarfa,
    squared_logits,
    target_probability,
)


def net64(rng):
    a, b = rng.normal(size=(6, 5)), rng.normal(size=(5, 3))
    return (lambda x: tf.tanh(x @ a) @ b), (lambda x: np.tanh(x @ a) @ b)


def numpy_score(z, y, score, kind):
    if kind == "sigmoid":
        signed = (2 * y - 1) * z
        return (log_expit(signed) if score == "log_prob" else signed).sum(-1)
    target = (y * z).sum(-1)
    if score == "logit":
        return target
    others = z if score == "log_prob" else np.where(y > 0, -np.inf, z)
    return target - logsumexp(others, -1)


@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
@pytest.mark.parametrize("score", ["log_prob", "margin", "logit"])
def test_float64_finite_differences(rng, score, kind):
    tensors, arrays = net64(rng)
    x, y = rng.normal(size=(4, 6)), np.eye(3)[[0, 2, 1, 1]]
    got = input_gradient(tensors, tf.constant(x), tf.cast(y, tf.float32), score, kind)
    assert got.dtype == tf.float64
    h = 1e-6
    for i in range(6):
        step = h * np.eye(6)[i]
        rise = numpy_score(arrays(x + step), y, score, kind)
        fall = numpy_score(arrays(x - step), y, score, kind)
        np.testing.assert_allclose(got[:, i], (rise - fall) / (2 * h), atol=2e-6)


def test_linear_logit_gradient_is_the_weight_row(images):
    dense = keras.layers.Dense(3)
    net = keras.Sequential([keras.Input((10, 8, 2)), keras.layers.Flatten(), dense])
    y = np.arange(11) % 3
    signed = gradient_map(net, images, y, score="logit", reduce=False)
    rows = dense.kernel.numpy().T[y].reshape(-1, 10, 8, 2)
    np.testing.assert_allclose(signed, rows, atol=1e-6)
    reduced = gradient_map(net, images, y, score="logit", batch_size=4)
    np.testing.assert_allclose(reduced, np.abs(rows).sum(-1), atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "layout", "expected"),
    [((4, 3), None, (4,)), ((5,), None, (5,)), ((4, 3), "image", (4, 3))],
)
def test_map_shapes(shape, layout, expected):
    x = np.ones((2, *shape), "uint8")
    width = int(np.prod(shape))
    model = lambda v: tf.reshape(tf.cast(v, tf.float32), (-1, width))[:, :2]  # noqa: E731
    with pytest.raises(ValueError, match="do not depend"):
        input_gradient(lambda v: tf.zeros((2, 2)), x, [[1.0, 0.0]])
    assert gradient_map(model, x, layout=layout).shape == (2, *expected)


def test_decision_labels_tensors_and_traces(conv_net, images):
    decided = conv_net(images).numpy().argmax(-1)
    own = gradient_map(conv_net, tf.constant(images))
    assert tf.is_tensor(own)
    np.testing.assert_allclose(own, gradient_map(conv_net, images, decided), atol=1e-6)
    traces = []

    def model(x):
        traces.append(1)
        return conv_net(x)

    explain = gradient_explainer(model, images[:1], batch_size=4)
    del traces[:]
    for rows in (11, 4, 3):
        explain(images[:rows])
    assert len(traces) == 1


def test_weights_are_not_watched(conv_net, images):
    def check(x):
        with tf.GradientTape(watch_accessed_variables=False):
            return conv_net(x)

    y = tf.one_hot([0] * 11, 3)
    with tf.GradientTape() as outer:
        g = input_gradient(check, tf.constant(images), y)
        total = tf.reduce_sum(g**2)
    assert outer.gradient(total, conv_net.trainable_variables[0].value) is not None


def test_sigmoid_head():
    dense = keras.layers.Dense(1, activation="sigmoid")
    net = keras.Sequential([keras.Input((4,)), dense])
    x = np.ones((2, 4), "float32")
    got = gradient_map(net, x, [1, 0], reduce=False)
    w = dense.kernel.numpy()[:, 0]
    p = expit(w.sum())
    np.testing.assert_allclose(got, [(1 - p) * w, -p * w], atol=1e-6)
    for score in ("margin", "logit"):
        got = gradient_map(net, x, [1, 0], score=score, reduce=False)
        np.testing.assert_allclose(got, [w, -w], atol=1e-6)


def test_tiny_gradients_survive_float16(rng):
    def net(policy):
        layers = [
            keras.layers.Dense(8, activation="silu", dtype=policy),
            keras.layers.Dense(3, dtype=policy),
        ]
        return keras.Sequential([keras.Input((6,)), *layers])

    half, full = net("mixed_float16"), net("float32")
    full.layers[-1].bias.assign([18.0, 0.0, 0.0])
    half.set_weights(full.get_weights())
    x = rng.normal(size=(5, 6)).astype("float32")
    expected = gradient_map(full, x, [0] * 5, reduce=False)
    assert np.abs(expected).max() < 1e-6
    got = gradient_map(half, x, [0] * 5, reduce=False)
    assert got.dtype == np.float32
    # Logits of 18 are off by 1e-2 in float16, so are the probabilities.
    np.testing.assert_allclose(got, expected, rtol=0.05, atol=0.03 * expected.max())


def test_zero_gradient_and_double_backprop(conv_net, images):
    x = tf.constant(images)
    zero = input_gradient(lambda v: 0.0 * conv_net(v), x, [[0.0] * 3] * 11, "logit")
    np.testing.assert_array_equal(zero, 0.0)
    y = tf.one_hot([0] * 11, 3)
    kernel = conv_net.layers[-1].kernel

    def penalty():
        return tf.reduce_sum(input_gradient(conv_net, x, y) ** 2)

    with tf.GradientTape() as tape:
        total = penalty()
    slope = tape.gradient(total, kernel.value).numpy()
    way = slope / np.linalg.norm(slope)
    start, h = kernel.numpy(), 1e-2
    kernel.assign(start + h * way)
    up = float(penalty())
    kernel.assign(start - h * way)
    assert (up - float(penalty())) / (2 * h) == pytest.approx(
        np.linalg.norm(slope), rel=1e-2
    )


def numpy_sarfa(before, after, action):
    """As the authors' code does, with probabilities."""
    p, q = softmax(before), softmax(after)
    drop = p[action] - q[action]
    if drop <= 0:
        return 0.0
    p, q = np.delete(p, action), np.delete(q, action)
    k = 1.0 / (1.0 + rel_entr(p / p.sum(), q / q.sum()).sum())
    return 2 * k * drop / (k + drop)


def test_sarfa_equals_numpy(rng):
    before, after = rng.normal(0, 2, (2, 200, 5))
    labels = rng.integers(0, 5, 200)
    expected = [numpy_sarfa(*row) for row in zip(before, after, labels, strict=True)]
    got = sarfa(before, after, np.eye(5)[labels])
    np.testing.assert_allclose(got, expected, atol=2e-6)
    assert 0 < np.count_nonzero(expected) < 200


def test_sarfa_at_the_edges():
    y = [[1.0, 0.0, 0.0]]
    assert float(sarfa([[1.0, 2.0, 3.0]], [[1.0, 2.0, 3.0]], y)[0]) == 0.0
    extreme = sarfa([[900.0, 800.0, -900.0]], [[-900.0, -900.0, 900.0]], y)
    assert np.isfinite(extreme).all()
    # Two classes: nothing but the drop matters, K = 1.
    drop = float(probability_drop([[1.0, 0.0]], [[0.0, 0.0]], [[1.0, 0.0]])[0])
    got = float(sarfa([[1.0, 0.0]], [[0.0, 0.0]], [[1.0, 0.0]])[0])
    assert got == pytest.approx(2 * drop / (1 + drop), abs=1e-6)


@pytest.mark.parametrize("score", ["squared_logits", "probability_drop", "sarfa"])
def test_one_logit_is_two_columns(rng, score):
    z, other = rng.normal(size=(2, 9, 1)).astype("float32")
    y = rng.integers(0, 2, (9, 1)).astype("float32")
    pad = lambda v: np.concatenate([np.zeros_like(v), v], 1)  # noqa: E731
    both = np.concatenate([1 - y, y], 1)
    one = change_score(tf.constant(z), tf.constant(other), y, score)
    two = change_score(tf.constant(pad(z)), tf.constant(pad(other)), both, score)
    np.testing.assert_allclose(one, two, atol=1e-6)


def test_probability_drop_equals_numpy(rng):
    before, after = rng.normal(0, 2, (2, 50, 4))
    y = np.eye(4)[rng.integers(0, 4, 50)]
    drop = ((softmax(before, -1) - softmax(after, -1)) * y).sum(-1)
    got = probability_drop(before, after, y)
    np.testing.assert_allclose(got, np.maximum(drop, 0), atol=1e-6)


def test_probability_drop_of_independent_classes():
    before, after = np.array([[40.0, 40.0]]), np.array([[0.0, 40.0]])
    y = np.array([[1.0, 1.0]])
    assert float(probability_drop(before, after, y, "sigmoid")[0]) == 0.25


@pytest.mark.parametrize("classes", [1, 3])
def test_soft_targets_weigh_presence_and_absence(rng, classes):
    z = rng.normal(0, 2, (5, classes)).astype("float32")
    soft = rng.random((5, classes)).astype("float32")
    kind = "sigmoid"
    present, absent = (target_probability(z, t * np.ones_like(z), kind) for t in (1, 0))
    np.testing.assert_allclose(present + absent, 1.0, atol=1e-6)
    expected = (soft * expit(z) + (1 - soft) * expit(-z)).mean(-1)
    np.testing.assert_allclose(target_probability(z, soft, kind), expected, rtol=1e-5)


@pytest.mark.parametrize("score", ["squared_logits", "probability_drop", "sarfa"])
def test_scores_are_float32_without_gradient(score):
    z = tf.constant([[1.0, 2.0, 0.5]], tf.float16)
    with tf.GradientTape() as tape:
        tape.watch(z)
        value = change_score(z, z * 0.5, [[0.0, 1.0, 0.0]], score)
    assert value.dtype == tf.float32
    assert tape.gradient(value, z) is None


def test_squared_logits_shift():
    z = tf.constant([[1.0, 2.0]])
    assert float(squared_logits(z, z + 1.0)[0]) == 1.0


def test_error_messages():
    z = tf.ones((1, 3))
    with pytest.raises(ValueError, match="Unknown `score`: got 'l2'"):
        change_score(z, z, None, "l2")
    with pytest.raises(ValueError, match="Got no targets"):
        change_score(z, z, None, "sarfa")
    with pytest.raises(ValueError, match="independent classes"):
        change_score(z, z, z, "sarfa", "sigmoid")
