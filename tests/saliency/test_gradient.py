import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.special import expit, log_expit, logsumexp

from keras_jsigr.saliency import gradient_explainer, gradient_map, input_gradient


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
