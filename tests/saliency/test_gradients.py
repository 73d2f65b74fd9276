"""Gradient methods and Grad-CAM against closed forms, NumPy and finite differences."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.special import expit, log_expit, logsumexp

from keras_jsigr.core.scores import class_score
from keras_jsigr.saliency import GradCAM, explain, explainer, gradient_map
from keras_jsigr.saliency.base import input_gradient
from keras_jsigr.saliency.grad_cam import find_feature_layer
from keras_jsigr.saliency.gradients import gradient_explainer, quadrature
from keras_jsigr.saliency.masks import compute_baseline as baseline

layers = keras.layers
LOGIT = {"score": "logit", "reduce": False}
RULES = ("gauss_legendre", "midpoint", "trapezoid")


def numpy_score(z, y, score, kind):
    if kind == "sigmoid":
        signed = (2 * y - 1) * z
        return (log_expit(signed) if score == "log_prob" else signed).sum(-1)
    target = (y * z).sum(-1)
    if score == "logit":
        return target
    others = z if score == "log_prob" else np.where(y > 0, -np.inf, z)
    return target - logsumexp(others, -1)


def test_float64_finite_differences(rng):
    a, b = rng.normal(size=(6, 5)), rng.normal(size=(5, 3))
    x, y = rng.normal(size=(4, 6)), np.eye(3, dtype="float32")[[0, 2, 1, 1]]
    h = 1e-6
    for kind, score in itertools.product(("softmax", "sigmoid"), ("log_prob", "margin", "logit")):
        got = input_gradient(lambda x: tf.tanh(x @ a) @ b, tf.constant(x), y, score, kind)
        assert got.dtype == tf.float64
        for i, step in enumerate(h * np.eye(6)):
            rise, fall = (
                numpy_score(np.tanh(point @ a) @ b, y, score, kind)
                for point in (x + step, x - step)
            )
            np.testing.assert_allclose(got[:, i], (rise - fall) / (2 * h), atol=2e-6)


def test_linear_logit_gradient_is_the_weight_row(images, labels):
    dense = layers.Dense(3)
    net = keras.Sequential([keras.Input((10, 8, 2)), layers.Flatten(), dense])
    signed = gradient_map(net, images, labels, **LOGIT)
    rows = dense.kernel.numpy().T[labels].reshape(-1, 10, 8, 2)
    np.testing.assert_allclose(signed, rows, atol=1e-6)
    reduced = gradient_map(net, images, labels, score="logit", batch_size=4)
    np.testing.assert_allclose(reduced, np.abs(rows).sum(-1), atol=1e-5)
    for same in (explain, gradient_map):
        np.testing.assert_array_equal(same(net, images, labels, **LOGIT), signed)
    run = gradient_explainer(net, images[:1], **LOGIT)
    np.testing.assert_array_equal(run(images, labels), signed)


def test_sigmoid_head():
    dense = layers.Dense(1, activation="sigmoid")
    net = keras.Sequential([keras.Input((4,)), dense])
    x, w = np.ones((2, 4), "float32"), dense.kernel.numpy()[:, 0]
    p = expit(w.sum())
    got = gradient_map(net, x, [1, 0], reduce=False)
    np.testing.assert_allclose(got, [(1 - p) * w, -p * w], atol=1e-6)
    for score in ("margin", "logit"):
        got = gradient_map(net, x, [1, 0], score=score, reduce=False)
        np.testing.assert_allclose(got, [w, -w], atol=1e-6)


def test_logits_that_do_not_depend_on_the_input():
    with pytest.raises(ValueError, match="do not depend"):
        input_gradient(lambda v: tf.zeros((2, 2)), np.ones((2, 4)), [[1.0, 0.0]])


def test_tiny_gradients_survive_float16(rng):
    def net(policy):
        inner = [
            layers.Dense(8, activation="silu", dtype=policy),
            layers.Dense(3, dtype=policy),
        ]
        return keras.Sequential([keras.Input((6,)), *inner])

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


def test_double_backprop_and_zero_gradients(conv_net, images):
    x, y = tf.constant(images), tf.one_hot([0] * 11, 3)
    zero = input_gradient(lambda v: 0.0 * conv_net(v), x, [[0.0] * 3] * 11, "logit")
    np.testing.assert_array_equal(zero, 0.0)
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
    assert (up - float(penalty())) / (2 * h) == pytest.approx(np.linalg.norm(slope), rel=1e-2)


# ---- several gradients of an example


def draws(count, shape, seed=0):
    """Return the noise of all samples, each by its own seed."""
    seeds = [
        tf.random.experimental.stateless_fold_in([0, seed], s, alg="philox") for s in range(count)
    ]
    return np.stack([tf.random.stateless_normal(shape, s, alg="philox") for s in seeds]).astype(
        float
    )


def test_gradient_times_input(net, images, labels):
    expected = images * net.gradient(images, labels)
    got = explain(net, images, labels, method="gradient_x_input", **LOGIT)
    np.testing.assert_allclose(got, expected, atol=1e-5)
    got = explain(net, images, labels, method="gradient_x_input", score="logit")
    np.testing.assert_allclose(got, np.abs(expected).sum(-1), atol=1e-5)


def test_smoothgrad_and_vargrad_by_hand(net, images, labels):
    noise = 0.2 * 2.0 * draws(7, (10, 8, 2), seed=4)
    gradients = np.stack([net.gradient(images + n, labels) for n in noise])
    settings = {"noise": 0.2, "input_range": (-1, 1), "seed": 4, "samples": 7, **LOGIT}
    got = explain(net, images, labels, method="smoothgrad", **settings)
    np.testing.assert_allclose(got, gradients.mean(0), atol=1e-5)
    other = explain(net, images, labels, method="smoothgrad", **{**settings, "seed": 5})
    assert np.abs(got - other).max() > 1e-4
    got = explain(net, images, labels, method="vargrad", **settings)
    expected = gradients.var(0, ddof=1)
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-7)


def test_linear_nets_have_no_variance(rng, images, labels):
    weights = rng.normal(size=(160, 3)).astype("float32")
    linear = lambda x: tf.reshape(x, (-1, 160)) @ weights  # noqa: E731
    got = explain(linear, images, labels, method="vargrad", score="logit", samples=5)
    np.testing.assert_array_equal(got, 0.0)
    got = explain(linear, images, labels, method="smoothgrad", samples=5, **LOGIT)
    rows = weights.T[labels].reshape(images.shape)
    np.testing.assert_allclose(got, rows, atol=1e-5)


def test_integrated_gradients_by_hand(net, images, labels):
    for rule in RULES:
        terms = [
            w * net.gradient(0.3 + t * (images - 0.3), labels)
            for t, w in zip(*quadrature(6, rule), strict=True)
        ]
        settings = {"steps": 6, "rule": rule, "baseline": 0.3, **LOGIT}
        got = explain(net, images, labels, method="integrated_gradients", **settings)
        np.testing.assert_allclose(got, (images - 0.3) * sum(terms), atol=1e-5)


def test_integrated_gradients_are_complete(conv_net, images, labels):
    for kind, score in (
        ("zero", "log_prob"),
        ("blur", "margin"),
        ("mean", "logit"),
        (0.5, "log_prob"),
    ):
        got = explain(
            conv_net,
            images,
            labels,
            method="integrated_gradients",
            baseline=kind,
            score=score,
            reduce=False,
        )
        named = isinstance(kind, str)
        low = baseline(images, kind) if named else np.full_like(images, kind)
        hot = tf.one_hot(labels, 3)
        here, there = (class_score(conv_net(x), hot, score) for x in (images, low))
        np.testing.assert_allclose(got.sum((1, 2, 3)), here - there, atol=1e-5)


def test_zero_is_the_low_end_of_the_range(net, images, labels):
    settings = {"method": "integrated_gradients", **LOGIT}
    got = explain(net, images, labels, input_range=(-1.0, 1.0), **settings)
    expected = explain(net, images, labels, baseline=-1.0, **settings)
    np.testing.assert_array_equal(got, expected)


def test_quadratic_nets_are_complete_with_two_points(rng):
    w = rng.normal(size=(3, 4, 4)).astype("float32")
    w += w.transpose(0, 2, 1)
    model = lambda x: tf.einsum("bi,cij,bj->bc", x, w, x)  # noqa: E731
    x, y = rng.normal(size=(6, 4)).astype("float32"), np.arange(6) % 3
    expected = x * np.einsum("bij,bj->bi", w[y], x)
    for rule in RULES:
        settings = {"method": "integrated_gradients", "steps": 2, "rule": rule}
        got = explain(model, x, y, **settings, **LOGIT)
        np.testing.assert_allclose(got, expected, atol=1e-5)


def test_quadrature_is_exact_for_polynomials():
    for power in range(8):
        points, weights = quadrature(4, "gauss_legendre")
        assert weights @ points**power == pytest.approx(1 / (power + 1))
    for rule in ("midpoint", "trapezoid"):
        points, weights = quadrature(4, rule)
        assert weights @ points == pytest.approx(0.5)
        assert weights @ points**2 != pytest.approx(1 / 3)


def test_refused(net, images):
    wrong = [
        ("smoothgrad", {"samples": 0}, "`samples` is out of range: got 0"),
        ("vargrad", {"samples": 1}, "expected an integer >= 2"),
        ("smoothgrad", {"noise": -0.1}, "`noise` is out of range: got -0.1"),
        ("smoothgrad", {"input_range": (1, 0)}, "`input_range`"),
        ("smoothgrad", {"chunk": 0}, "`chunk` is out of range: got 0"),
        ("integrated_gradients", {"rule": "simpson"}, "Unknown `rule`: got 'simpson'"),
        ("integrated_gradients", {"steps": 1}, "`steps` is out of range: got 1"),
        ("integrated_gradients", {"baseline": "noise"}, "Unknown `baseline`"),
        ("integrated_gradients", {"baseline": np.nan}, "`baseline` is out of range"),
        ("gradient", {"score": "prob"}, "Unknown `score`: got 'prob'"),
        ("gradient", {"reduce": "mean"}, "Unknown `reduce`"),
    ]
    for method, settings, message in wrong:
        with pytest.raises(ValueError, match=message):
            explain(net, images, method=method, **settings)
    with pytest.raises(TypeError, match=r"`seed` is not an integer: got 0\.5"):
        explain(net, images, method="smoothgrad", seed=0.5)


# ---- Grad-CAM


def resized(maps, shape):
    """Resize `(B, h, w)` bilinearly with half-pixel centres and clamped borders."""
    out = maps
    for axis, length in ((1, shape[0]), (2, shape[1])):
        size = out.shape[axis]
        place = np.clip((np.arange(length) + 0.5) * size / length - 0.5, 0, size - 1)
        low = np.minimum(np.floor(place).astype(int), max(size - 2, 0))
        share = np.expand_dims(place - low, 1 if axis == 1 else 0)[np.newaxis]
        first, second = np.take(out, low, axis), np.take(out, low + 1, axis)
        out = (1 - share) * first + share * second
    return out


def grad_cam(net, images, y=None, **settings):
    return explain(net, images, y, method="grad_cam", verbose=0, **settings)


def test_a_net_that_pools_in_closed_form(images, labels):
    # Logits are linear in the mean of the features: w_k is a weight over H W.
    conv, dense = layers.Conv2D(4, 3, strides=2, activation="tanh"), layers.Dense(3)
    inputs = keras.Input((10, 8, 2))
    outputs = dense(layers.GlobalAveragePooling2D()(conv(inputs)))
    net = keras.Model(inputs, outputs)
    features = keras.ops.convert_to_numpy(conv(images))
    size = features.shape[1] * features.shape[2]
    weights = keras.ops.convert_to_numpy(dense.kernel).T[labels] / size
    cam = np.maximum(np.einsum("bhwk,bk->bhw", features, weights), 0)
    assert (cam > 0).any()
    assert (cam == 0).any()
    got = grad_cam(net, images, labels)
    np.testing.assert_allclose(got, resized(cam, (10, 8)), atol=1e-6)


def test_against_a_split_model(conv_net, images):
    for layer in ("first", "last"):
        there = conv_net.get_layer(layer).output
        below = keras.Model(conv_net.inputs[0], there)
        above = keras.Model(there, conv_net.outputs[0])
        features = tf.convert_to_tensor(below(images))
        with tf.GradientTape() as tape:
            tape.watch(features)
            own = tf.reduce_max(above(features), axis=-1)
        weights = tape.gradient(own, features).numpy().mean((1, 2), keepdims=True)
        cam = np.maximum((weights * features.numpy()).sum(-1), 0)
        got = grad_cam(conv_net, images, layer=layer)
        np.testing.assert_allclose(got, resized(cam, (10, 8)), rtol=1e-4, atol=1e-6)


def test_both_classes_of_one_unit(images):
    """As of two units `(-z / 2, z / 2)`, but for the factor of two."""
    conv, pool = layers.Conv2D(4, 3), layers.GlobalAveragePooling2D()
    one, two = layers.Dense(1, activation="sigmoid"), layers.Dense(2)
    nets = [keras.Sequential([keras.Input((10, 8, 2)), conv, pool, last]) for last in (one, two)]
    two.kernel.assign(np.concatenate([-one.kernel / 2, one.kernel / 2], axis=1))
    for label in (0, 1):
        maps, halves = (grad_cam(net, images, [label] * 11) for net in nets)
        np.testing.assert_allclose(maps, 2 * halves, rtol=1e-4, atol=1e-6)
        assert maps.max() > 0


def test_certain_decisions_in_mixed_precision(images):
    def net(policy):
        inner = [
            layers.Conv2D(4, 3, dtype=policy),
            layers.GlobalAveragePooling2D(dtype=policy),
            layers.Dense(3, dtype=policy),
        ]
        return keras.Sequential([keras.Input((10, 8, 2)), *inner])

    half, full = net("mixed_float16"), net("float32")
    full.layers[-1].bias.assign([20.0, 0.0, 0.0])
    half.set_weights(full.get_weights())
    for score in ("log_prob", "logit"):
        expected = grad_cam(full, images, [0] * 11, score=score)
        assert expected.max() > 0
        got = grad_cam(half, images, [0] * 11, score=score)
        np.testing.assert_allclose(got, expected, rtol=0.2, atol=0.05 * expected.max())


def test_the_layer_is_found_and_told(conv_net, images, capsys):
    run = explainer(conv_net, images[:1], method="grad_cam")
    assert run.method.layer == "last"
    assert "layer 'last', outputs (8, 6, 5)" in capsys.readouterr().out
    explainer(conv_net, images[:1], method="grad_cam", verbose=0)
    explainer(conv_net, images[:1], method="grad_cam", layer="first")
    keras.config.disable_interactive_logging()
    try:
        explainer(conv_net, images[:1], method="grad_cam")
    finally:
        keras.config.enable_interactive_logging()
    assert capsys.readouterr().out == ""


class Doubling(keras.Model):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def call(self, x):
        return self.inner(2.0 * x)


def test_subclassed_and_nested_models(conv_net, images):
    model = Doubling(conv_net)
    model(images)
    run = explainer(model, images[:1], method="grad_cam", verbose=0)
    assert run.method.layer == "last"
    expected = explain(conv_net, 2.0 * images, method=GradCAM(verbose=0))
    np.testing.assert_allclose(run(images), expected, rtol=1e-5, atol=1e-7)


def test_normalization_and_activation_belong_to_the_convolution(images):
    relu, pool = layers.ReLU(name="relu"), layers.MaxPooling2D(2)
    convolution = [layers.Conv2D(3, 3), layers.BatchNormalization(), relu]
    ends = [layers.Flatten(), layers.Dropout(0.5), layers.Dense(2)]
    net = keras.Sequential([keras.Input((10, 8, 2)), *convolution, pool, *ends])
    assert find_feature_layer(net, images)[0] is relu
    patches = layers.Reshape((5, 4, 8), name="patches")
    net = keras.Sequential([keras.Input((10, 8, 2)), patches, layers.Flatten()])
    assert find_feature_layer(net, images) == (patches, (5, 4, 8), 0)


def test_maps_of_nothing_but_zeros_are_told(images):
    off = layers.Dense(4, activation="relu", bias_initializer=keras.initializers.Constant(-99.0))
    net = keras.Sequential([keras.Input((10, 8, 2)), layers.Flatten(), off, layers.Dense(2)])
    with pytest.warns(UserWarning, match="All maps are zero.*ReLUs"):
        assert not explain(net, images).any()


def test_a_convolution_as_head_tells_no_place(images):
    features = [layers.Conv2D(4, 3), layers.ReLU(name="relu")]
    pool = layers.GlobalAveragePooling2D(keepdims=True)
    ends = [pool, layers.Conv2D(3, 1), layers.Dropout(0.5), layers.Flatten()]
    net = keras.Sequential([keras.Input((10, 8, 2)), *features, *ends])
    assert find_feature_layer(net, images) == (features[1], (8, 6, 4), 0)
    assert np.ptp(grad_cam(net, images), axis=(1, 2)).max() > 0
    points = keras.Sequential([keras.Input((1, 1, 2)), layers.Conv2D(3, 1), ends[-1]])
    found = find_feature_layer(points, images[:, :1, :1])
    assert found == (points.layers[0], (1, 1, 3), 0)


def test_one_of_several_calls_of_a_layer(images):
    """Told apart from its other calls, of which the last is no image."""
    first, last, end = layers.Conv2D(4, 3), layers.Conv2D(6, 3), layers.Dense(8)
    head = layers.Dense(3)

    def net(one, two, three):
        inputs = keras.Input((10, 8, 2))
        hidden = two(last(one(first(inputs))))
        return keras.Model(inputs, head(three(end(layers.Flatten()(hidden)))))

    own = net(layers.ReLU(), layers.ReLU(name="two"), layers.ReLU())
    expected = grad_cam(own, images, layer="two")
    assert expected.max() > 0
    relu = layers.ReLU(name="shared")
    shared = net(relu, relu, relu)
    assert find_feature_layer(shared, images) == (relu, (6, 4, 6), 1)
    for layer in (None, "shared"):
        got = grad_cam(shared, images, layer=layer)
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-7)


def test_a_later_call_of_another_resolution_plays_no_part(images):
    conv, head = layers.Conv2D(4, 3), layers.Dense(3)

    def net(one, two):
        inputs = keras.Input((10, 8, 2))
        pooled = layers.AveragePooling2D(2)(one(conv(inputs)))
        return keras.Model(inputs, head(layers.Flatten()(two(pooled))))

    own = net(layers.Activation("tanh", name="one"), layers.Activation("tanh"))
    tanh = layers.Activation("tanh", name="shared")
    shared = net(tanh, tanh)
    expected = grad_cam(own, images, layer="one")
    run = explainer(shared, images[:1], method="grad_cam", verbose=0)
    np.testing.assert_allclose(run(images), expected, rtol=1e-5, atol=1e-7)
    again = explain(shared, images, method=run.method)
    np.testing.assert_allclose(again, expected, rtol=1e-5, atol=1e-7)


def test_current_weights(conv_net, images):
    run = explainer(conv_net, images[:1], method="grad_cam", verbose=0)
    before = run(images)
    dense = conv_net.layers[-1]
    dense.kernel.assign(3.0 * dense.kernel)
    np.testing.assert_allclose(run(images), 3.0 * before, rtol=1e-4, atol=1e-6)


def test_a_layer_whose_call_the_user_shadowed(conv_net, images):
    layer, calls = conv_net.get_layer("last"), []
    own = layer.call

    def shadow(*args, **kwargs):
        calls.append(1)
        return own(*args, **kwargs)

    object.__setattr__(layer, "call", shadow)
    assert find_feature_layer(conv_net, images)[0] is layer
    assert vars(layer)["call"] is shadow
    assert calls


def test_normalization_is_not_folded_away(images):
    """The features are those of the layer that was named."""
    inner = [
        layers.Conv2D(4, 3),
        layers.BatchNormalization(name="norm"),
        layers.ReLU(),
    ]
    tail = [layers.GlobalAveragePooling2D(), layers.Dense(3)]
    net = keras.Sequential([keras.Input(images.shape[1:]), *inner, *tail])
    net.get_layer("norm").moving_mean.assign([0.5, -0.5, 0.2, 0.1])
    net.get_layer("norm").gamma.assign([3.0, 0.5, -1.0, 2.0])
    x, y = tf.constant(images), np.zeros(len(images), int)
    features = keras.Model(net.inputs, net.get_layer("norm").output)(x)
    with tf.GradientTape() as tape:
        tape.watch(features)
        score = net.layers[-1](net.layers[-2](tf.nn.relu(features)))[:, 0]
    slopes = tf.reduce_mean(tape.gradient(score, features), (1, 2), keepdims=True)
    cam = tf.nn.relu(tf.reduce_sum(slopes * features, -1, keepdims=True))
    expected = tf.image.resize(cam, images.shape[1:3])[..., 0]
    got = grad_cam(net, images, y, layer="norm")
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-6)


def test_refused_by_grad_cam(conv_net, images, rng):
    with pytest.raises(TypeError, match="expected a Keras model"):
        grad_cam(lambda x: x[:, 0, 0], images)
    dense = keras.Sequential([keras.Input((4,)), layers.Dense(3, name="dense")])
    table = rng.random((2, 4)).astype("float32")
    ends = [layers.Flatten(), layers.Dense(3, name="dense")]
    flat = keras.Sequential([keras.Input((10, 8, 2)), *ends])
    for net, x, settings, message in (
        (conv_net, images, {"layer": "none"}, r"Got layer 'none'.*first, last"),
        (dense, table, {}, r"expected images \(H, W, C\)"),
        (flat, images, {}, r"no layer with outputs \(B, H, W, C\)"),
        (flat, images, {"layer": "dense"}, "layer 'dense' without outputs"),
        (conv_net, images, {"layout": "sequence"}, "Unknown `layout`"),
        (conv_net, images, {"score": "prob"}, "Unknown `score`: got 'prob'"),
    ):
        with pytest.raises(ValueError, match=message):
            grad_cam(net, x, **settings)
