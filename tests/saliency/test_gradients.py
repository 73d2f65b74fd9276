"""Cutting a classifier behind its first layer, and working there as if at the input."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_jsigr as kj
from keras_jsigr.core.logits import as_logits
from keras_jsigr.core.scores import class_score
from keras_jsigr.saliency import GradCAM, baseline, explain, explainer, gradient_map
from keras_jsigr.saliency.grad_cam import find_feature_layer
from keras_jsigr.saliency.gradients import LinearStem, find_linear_stem, quadrature

RNG = np.random.default_rng(0)


X = tf.constant(RNG.uniform(0, 1, (3, 8, 8, 2)), tf.float32)


def sequential(*inner, head=None):
    tail = [layers.Flatten(), layers.Dense(4, activation=head)]
    return keras.Sequential([keras.Input((8, 8, 2)), *inner, *tail])


def with_norm():
    norm = layers.BatchNormalization()
    model = sequential(layers.Conv2D(5, 3), norm, layers.ReLU())
    for variable in norm.variables:
        variable.assign(RNG.uniform(0.5, 1.5, variable.shape))
    return model


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.first = layers.Conv2D(5, 3, strides=2, activation="tanh")
        self.tail = keras.Sequential([layers.Flatten(), layers.Dense(4)])

    def call(self, x):
        return self.tail(self.first(x))


def subclassed():
    model = Subclassed()
    model(X)
    return model


MODELS = {
    "convolution": lambda: sequential(
        layers.Conv2D(5, 4, strides=2, padding="same", activation="silu")
    ),
    "no bias": lambda: sequential(
        layers.Conv2D(5, 3, use_bias=False, activation="elu")
    ),
    "depthwise": lambda: sequential(layers.DepthwiseConv2D(3, activation="gelu")),
    "dense on the last axis": lambda: sequential(layers.Dense(6, activation="silu")),
    "folded normalization": with_norm,
    "softmax head": lambda: sequential(
        layers.Conv2D(5, 3, activation="silu"), head="softmax"
    ),
    "nested": lambda: sequential(
        keras.Sequential([keras.Input((8, 8, 2)), layers.Conv2D(5, 3), layers.ReLU()])
    ),
    "subclassed": subclassed,
}


def front_of(model):
    return find_linear_stem(model, as_logits(model, X), X)


@pytest.mark.parametrize("name", MODELS)
def test_the_front_stands_for_the_input(name):
    model = MODELS[name]()
    front = front_of(model)
    assert front.layer is not None
    np.testing.assert_allclose(
        front.logits(front.features(X), X), front(X), rtol=1e-4, atol=1e-5
    )
    step = tf.constant(RNG.normal(0, 1, X.shape), tf.float32)
    moved = front.features(X) + front.moved(step)
    np.testing.assert_allclose(moved, front.features(X + step), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_sums_of_gradients_are_pulled_back_at_once(name):
    model = MODELS[name]()
    front = front_of(model)

    @tf.function(input_signature=[tf.TensorSpec((None, 8, 8, 2))])
    def at_features(x):
        features = front.features(x)
        with tf.GradientTape() as tape:
            tape.watch(features)
            total = tf.reduce_sum(front.logits(features, x)[:, 0] ** 2)
        return front.pull(tape.gradient(total, features), x)

    with tf.GradientTape() as tape:
        tape.watch(X)
        total = tf.reduce_sum(front(X)[:, 0] ** 2)
    np.testing.assert_allclose(
        at_features(X), tape.gradient(total, X), rtol=1e-4, atol=1e-5
    )


def test_the_model_is_as_before():
    model = MODELS["convolution"]()
    front, expected = front_of(model), model(X)
    front.logits(front.features(X), X)
    assert model.layers[0].activation is keras.activations.silu
    np.testing.assert_array_equal(model(X), expected)


def two_readers():
    image = keras.Input((8, 8, 2))
    a, b = layers.Conv2D(5, 3)(image), layers.Conv2D(5, 3)(image)
    x = layers.Flatten()(layers.Multiply()([a, b]))
    return keras.Model(image, layers.Dense(4)(x))


def past_the_front():
    image = keras.Input((8, 8, 2))
    x = layers.Conv2D(2, 3, padding="same")(image)
    x = layers.Flatten()(layers.Multiply()([x, image]))
    return keras.Model(image, layers.Dense(4)(x))


def past_the_front_to_a_head_of_zeros():
    model = past_the_front()
    model.layers[-1].kernel.assign(tf.zeros_like(model.layers[-1].kernel))
    return model


EMPTY = {
    "two readers": two_readers,
    "past the front": past_the_front,
    "past the front, to a head of zeros": past_the_front_to_a_head_of_zeros,
    "something before": lambda: sequential(layers.ReLU(), layers.Conv2D(5, 3)),
    "half precision": lambda: sequential(layers.Conv2D(5, 3, dtype="mixed_float16")),
}


@pytest.mark.parametrize("name", EMPTY)
def test_no_front(name):
    assert front_of(EMPTY[name]()).layer is None


def test_a_callable_has_an_empty_front():
    def model(x):
        return tf.reduce_sum(x, [1, 2])

    front = find_linear_stem(model, model, X)
    assert front == LinearStem(model)
    assert front.features(X) is X
    assert front.moved(X) is X
    np.testing.assert_array_equal(front.logits(X, X), model(X))
    np.testing.assert_array_equal(front.pull(X, X), X)


LOGIT = {"score": "logit", "reduce": False}


NOISY = ("smoothgrad", "vargrad")


def draws(count, shape, seed=0):
    """Return the noise of all samples, each by its own seed."""
    seeds = [
        tf.random.experimental.stateless_fold_in([0, seed], s, alg="philox")
        for s in range(count)
    ]
    return np.stack(
        [tf.random.stateless_normal(shape, s, alg="philox") for s in seeds]
    ).astype(float)


def test_gradient_is_gradient_map(conv_net, images, labels):
    for settings in ({}, {"score": "margin"}, {"reduce": False}):
        np.testing.assert_array_equal(
            explain(conv_net, images, labels, **settings),
            gradient_map(conv_net, images, labels, **settings),
        )
    np.testing.assert_array_equal(
        explain(conv_net, images), gradient_map(conv_net, images)
    )


def test_gradient_times_input(net, images, labels):
    got = explain(net, images, labels, method="gradient_x_input", **LOGIT)
    expected = images * net.gradient(images, labels)
    np.testing.assert_allclose(got, expected, atol=1e-5)
    got = explain(net, images, labels, method="gradient_x_input", score="logit")
    np.testing.assert_allclose(got, np.abs(expected).sum(-1), atol=1e-5)


def test_smoothgrad_and_vargrad_by_hand(net, images, labels):
    noise = 0.2 * 2.0 * draws(7, (8, 6, 2), seed=4)
    gradients = np.stack([net.gradient(images + n, labels) for n in noise])
    settings = {"noise": 0.2, "input_range": (-1, 1), "seed": 4, "samples": 7, **LOGIT}
    got = explain(net, images, labels, method="smoothgrad", **settings)
    np.testing.assert_allclose(got, gradients.mean(0), atol=1e-5)
    got = explain(net, images, labels, method="vargrad", **settings)
    expected = gradients.var(0, ddof=1)
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("method", [*NOISY, "integrated_gradients", "rise"])
def test_neither_batch_nor_chunk_nor_order_matter(conv_net, images, labels, method):
    settings = {"samples": 9} if method != "integrated_gradients" else {"steps": 9}
    whole = explain(conv_net, images, labels, method=method, **settings)
    assert whole.std() > 1e-6
    tolerance = {"rtol": 1e-4, "atol": 1e-5 * whole.max()}
    # Four draws at once for batches of two, nine for the last one alone.
    split = explain(
        conv_net,
        images[::-1],
        labels[::-1],
        method=method,
        batch_size=2,
        chunk=9,
        **settings,
    )
    np.testing.assert_allclose(split[::-1], whole, **tolerance)


def test_the_seed_decides(net, images):
    maps = [
        explain(net, images, method="smoothgrad", samples=3, seed=seed)
        for seed in (0, 0, 1)
    ]
    np.testing.assert_array_equal(maps[0], maps[1])
    assert np.abs(maps[0] - maps[2]).max() > 1e-4


def test_linear_nets_have_no_variance(rng, images, labels):
    weights = rng.normal(size=(96, 3)).astype("float32")
    linear = lambda x: tf.reshape(x, (-1, 96)) @ weights  # noqa: E731
    np.testing.assert_array_equal(
        explain(linear, images, labels, method="vargrad", score="logit", samples=5), 0.0
    )
    got = explain(linear, images, labels, method="smoothgrad", samples=5, **LOGIT)
    rows = weights.T[labels].reshape(images.shape)
    np.testing.assert_allclose(got, rows, atol=1e-5)


@pytest.mark.parametrize("rule", ["gauss_legendre", "midpoint", "trapezoid"])
def test_integrated_gradients_by_hand(net, images, labels, rule):
    points, weights = quadrature(6, rule)
    terms = [
        w * net.gradient(0.3 + t * (images - 0.3), labels)
        for t, w in zip(points, weights, strict=True)
    ]
    settings = {"steps": 6, "rule": rule, "baseline": 0.3, **LOGIT}
    got = explain(net, images, labels, method="integrated_gradients", **settings)
    np.testing.assert_allclose(got, (images - 0.3) * sum(terms), atol=1e-5)


@pytest.mark.parametrize("kind", ["zero", "blur", "mean", 0.5])
@pytest.mark.parametrize("score", ["log_prob", "margin", "logit"])
def test_completeness(conv_net, images, labels, kind, score):
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
    rise = class_score(conv_net(images), hot, score) - class_score(
        conv_net(low), hot, score
    )
    np.testing.assert_allclose(got.sum((1, 2, 3)), rise, atol=1e-5)


@pytest.mark.parametrize("rule", ["gauss_legendre", "midpoint", "trapezoid"])
def test_quadratic_nets_are_complete_with_two_points(rng, rule):
    w = rng.normal(size=(3, 4, 4)).astype("float32")
    w += w.transpose(0, 2, 1)
    model = lambda x: tf.einsum("bi,cij,bj->bc", x, w, x)  # noqa: E731
    x, y = rng.normal(size=(6, 4)).astype("float32"), np.arange(6) % 3
    got = explain(
        model, x, y, method="integrated_gradients", steps=2, rule=rule, **LOGIT
    )
    np.testing.assert_allclose(got, x * np.einsum("bij,bj->bi", w[y], x), atol=1e-5)


def test_quadrature_is_exact_for_polynomials():
    for power in range(8):
        points, weights = quadrature(4, "gauss_legendre")
        assert weights @ points**power == pytest.approx(1 / (power + 1))
    for rule in ("midpoint", "trapezoid"):
        points, weights = quadrature(4, rule)
        assert weights @ points == pytest.approx(0.5)
        assert weights @ points**2 != pytest.approx(1 / 3)


@pytest.mark.parametrize("method", [*NOISY, "integrated_gradients", "gradient_x_input"])
@pytest.mark.parametrize("shape", [(12,), (6, 3)])
def test_features_and_sequences(make_net, rng, method, shape):
    x = rng.random((4, *shape)).astype("float32")
    run = explainer(make_net(shape), x[:1], method=method, reduce=method != "vargrad")
    expected = shape if method == "vargrad" else shape[:1]
    assert run(x).shape == (4, *expected)
    assert run(x[:0]).shape == (0, *expected)


@pytest.mark.parametrize(
    ("method", "settings", "message"),
    [
        (
            "smoothgrad",
            {"samples": 0},
            "`samples` is out of range: got 0, expected an integer",
        ),
        ("vargrad", {"samples": 1}, "expected an integer >= 2"),
        ("smoothgrad", {"noise": -0.1}, "`noise` is out of range: got -0.1"),
        ("smoothgrad", {"input_range": (1, 0)}, "width of input_range"),
        ("smoothgrad", {"chunk": 0}, "`chunk` is out of range: got 0"),
        ("integrated_gradients", {"rule": "simpson"}, "Unknown `rule`: got 'simpson'"),
        ("integrated_gradients", {"steps": 1}, "`steps` is out of range: got 1"),
        ("integrated_gradients", {"baseline": "noise"}, "Unknown `baseline`"),
        (
            "integrated_gradients",
            {"baseline": np.nan},
            "`baseline` is out of range: got nan",
        ),
        ("gradient", {"score": "prob"}, "Unknown `score`: got 'prob'"),
        ("gradient", {"kind": "linear"}, "Unknown `kind`: got 'linear'"),
        ("gradient", {"reduce": "mean"}, "Unknown `reduce`"),
    ],
)
def test_refused(net, images, method, settings, message):
    with pytest.raises(ValueError, match=message):
        explain(net, images, method=method, **settings)


def test_fractional_seed_is_refused(net, images):
    with pytest.raises(TypeError, match=r"`seed` is not an integer: got 0\.5"):
        explain(net, images, method="smoothgrad", seed=0.5)


layers_grad_cam = keras.layers


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


def test_a_net_that_pools_in_closed_form(images, labels):
    # Logits are linear in the mean of the features: w_k is a weight over H W.
    conv = layers_grad_cam.Conv2D(4, 3, strides=2, activation="tanh")
    dense = layers_grad_cam.Dense(3)
    inputs = keras.Input((8, 6, 2))
    outputs = dense(layers_grad_cam.GlobalAveragePooling2D()(conv(inputs)))
    net = keras.Model(inputs, outputs)
    features = keras.ops.convert_to_numpy(conv(images))
    size = features.shape[1] * features.shape[2]
    weights = keras.ops.convert_to_numpy(dense.kernel).T[labels] / size
    cam = np.maximum(np.einsum("bhwk,bk->bhw", features, weights), 0)
    assert (cam > 0).any()
    assert (cam == 0).any()
    got = explain(net, images, labels, method="grad_cam", verbose=0)
    np.testing.assert_allclose(got, resized(cam, (8, 6)), atol=1e-6)


@pytest.mark.parametrize("layer", ["first", "last"])
def test_against_a_split_model(conv_net, images, layer):
    there = conv_net.get_layer(layer).output
    below = keras.Model(conv_net.inputs[0], there)
    above = keras.Model(there, conv_net.outputs[0])
    features = tf.convert_to_tensor(below(images))
    with tf.GradientTape() as tape:
        tape.watch(features)
        own = tf.reduce_max(above(features), axis=-1)
    weights = tape.gradient(own, features).numpy().mean((1, 2), keepdims=True)
    cam = np.maximum((weights * features.numpy()).sum(-1), 0)
    got = explain(conv_net, images, method="grad_cam", layer=layer)
    np.testing.assert_allclose(got, resized(cam, (8, 6)), rtol=1e-4, atol=1e-6)


def test_the_layer_is_found_and_said(conv_net, images, capsys):
    run = explainer(conv_net, images[:1], method="grad_cam")
    assert run.method.layer == "last"
    assert capsys.readouterr().out == (
        "keras_jsigr: Grad-CAM looks at layer 'last', outputs (6, 4, 5).\n"
    )
    explainer(conv_net, images[:1], method="grad_cam", verbose=0)
    explainer(conv_net, images[:1], method="grad_cam", layer="first")
    assert capsys.readouterr().out == ""


def test_hardened_and_softmax_models_are_seen_through(conv_net, images):
    expected = explain(conv_net, images, method=GradCAM(verbose=0))
    hardened = kj.harden(conv_net, probe=False, verbose=0)
    got = explain(hardened, images, method=GradCAM(verbose=0))
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-7)
    softmax = keras.Sequential([*conv_net.layers, layers_grad_cam.Softmax()])
    got = explain(softmax, images, method=GradCAM(verbose=0))
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-7)
    assert "call" not in vars(conv_net.get_layer("last"))


class Subclassed_grad_cam(keras.Model):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def call(self, x):
        return self.inner(2.0 * x)


def test_subclassed_and_nested_models(conv_net, images):
    model = Subclassed_grad_cam(conv_net)
    model(images)
    run = explainer(model, images[:1], method="grad_cam", verbose=0)
    assert run.method.layer == "last"
    expected = explain(conv_net, 2.0 * images, method=GradCAM(verbose=0))
    np.testing.assert_allclose(run(images), expected, rtol=1e-5, atol=1e-7)


def test_normalization_and_activation_belong_to_the_convolution(images):
    relu, pool = layers_grad_cam.ReLU(name="relu"), layers_grad_cam.MaxPooling2D(2)
    convolution = [
        layers_grad_cam.Conv2D(3, 3),
        layers_grad_cam.BatchNormalization(),
        relu,
    ]
    ends = [
        layers_grad_cam.Flatten(),
        layers_grad_cam.Dropout(0.5),
        layers_grad_cam.Dense(2),
    ]
    net = keras.Sequential([keras.Input((8, 6, 2)), *convolution, pool, *ends])
    assert find_feature_layer(net, images)[0] is relu
    patches = layers_grad_cam.Reshape((4, 3, 8), name="patches")
    net = keras.Sequential([keras.Input((8, 6, 2)), patches, layers_grad_cam.Flatten()])
    assert find_feature_layer(net, images) == (patches, (4, 3, 8), 0)


def test_a_convolution_as_head_tells_no_place(images):
    features = [layers_grad_cam.Conv2D(4, 3), layers_grad_cam.ReLU(name="relu")]
    pool = layers_grad_cam.GlobalAveragePooling2D(keepdims=True)
    ends = [
        pool,
        layers_grad_cam.Conv2D(3, 1),
        layers_grad_cam.Dropout(0.5),
        layers_grad_cam.Flatten(),
    ]
    net = keras.Sequential([keras.Input((8, 6, 2)), *features, *ends])
    assert find_feature_layer(net, images) == (features[1], (6, 4, 4), 0)
    maps = explain(net, images, method="grad_cam", verbose=0)
    assert np.ptp(maps, axis=(1, 2)).max() > 0
    points = keras.Sequential(
        [keras.Input((1, 1, 2)), layers_grad_cam.Conv2D(3, 1), ends[-1]]
    )
    found = find_feature_layer(points, images[:, :1, :1])
    assert found == (points.layers[0], (1, 1, 3), 0)


def test_one_of_several_calls_of_a_layer(images):
    """Told apart from its other calls, of which the last is no image."""
    first, last, end = (
        layers_grad_cam.Conv2D(4, 3),
        layers_grad_cam.Conv2D(6, 3),
        layers_grad_cam.Dense(8),
    )
    head = layers_grad_cam.Dense(3)

    def net(one, two, three):
        inputs = keras.Input((8, 6, 2))
        hidden = two(last(one(first(inputs))))
        return keras.Model(inputs, head(three(end(layers_grad_cam.Flatten()(hidden)))))

    own = net(
        layers_grad_cam.ReLU(), layers_grad_cam.ReLU(name="two"), layers_grad_cam.ReLU()
    )
    expected = explain(own, images, method="grad_cam", verbose=0, layer="two")
    assert expected.max() > 0
    relu = layers_grad_cam.ReLU(name="shared")
    shared = net(relu, relu, relu)
    assert find_feature_layer(shared, images) == (relu, (4, 2, 6), 1)
    for layer in (None, "shared"):
        got = explain(shared, images, method="grad_cam", verbose=0, layer=layer)
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-7)


def test_a_later_call_of_another_resolution_plays_no_part(images):
    conv, head = layers_grad_cam.Conv2D(4, 3), layers_grad_cam.Dense(3)

    def net(one, two):
        inputs = keras.Input((8, 6, 2))
        pooled = layers_grad_cam.AveragePooling2D(2)(one(conv(inputs)))
        return keras.Model(inputs, head(layers_grad_cam.Flatten()(two(pooled))))

    own = net(
        layers_grad_cam.Activation("tanh", name="one"),
        layers_grad_cam.Activation("tanh"),
    )
    tanh = layers_grad_cam.Activation("tanh", name="shared")
    shared = net(tanh, tanh)
    expected = explain(own, images, method="grad_cam", verbose=0, layer="one")
    run = explainer(shared, images[:1], method="grad_cam", verbose=0)
    np.testing.assert_allclose(run(images), expected, rtol=1e-5, atol=1e-7)
    again = explain(shared, images, method=run.method)
    np.testing.assert_allclose(again, expected, rtol=1e-5, atol=1e-7)


def test_weights_are_followed_and_batches_do_not_matter(conv_net, images):
    run = explainer(conv_net, images[:1], method="grad_cam", verbose=0, batch_size=2)
    before = run(images)
    whole = explain(conv_net, images, method="grad_cam", verbose=0)
    np.testing.assert_allclose(before, whole, rtol=1e-5, atol=1e-7)
    dense = conv_net.layers[-1]
    dense.kernel.assign(3.0 * dense.kernel)
    np.testing.assert_allclose(run(images), 3.0 * before, rtol=1e-4, atol=1e-6)


def test_a_layer_that_was_shadowed_before(conv_net, images):
    layer, calls = conv_net.get_layer("last"), []
    own = layer.call

    def shadow(*args, **kwargs):
        calls.append(1)
        return own(*args, **kwargs)

    object.__setattr__(layer, "call", shadow)
    assert find_feature_layer(conv_net, images)[0] is layer
    assert vars(layer)["call"] is shadow
    assert calls


def test_normalization_is_not_folded_where_a_layer_is_looked_at(images):
    inner = [
        layers_grad_cam.Conv2D(4, 3),
        layers_grad_cam.BatchNormalization(name="norm"),
        layers_grad_cam.ReLU(),
    ]
    tail = [layers_grad_cam.GlobalAveragePooling2D(), layers_grad_cam.Dense(3)]
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
    got = explain(net, images, y, method="grad_cam", layer="norm", verbose=0)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-6)


def test_refused_grad_cam(conv_net, images, rng):
    with pytest.raises(TypeError, match="expected a Keras model"):
        explain(lambda x: x[:, 0, 0], images, method="grad_cam")
    with pytest.raises(ValueError, match=r"Got layer 'none'.*first, last"):
        explain(conv_net, images, method="grad_cam", layer="none")
    dense = keras.Sequential(
        [keras.Input((4,)), layers_grad_cam.Dense(3, name="dense")]
    )
    table = rng.random((2, 4)).astype("float32")
    with pytest.raises(ValueError, match=r"no layer has outputs \(B, H, W, C\)"):
        explain(dense, table, method="grad_cam")
    with pytest.raises(ValueError, match="not even layer 'dense'"):
        explain(dense, table, method="grad_cam", layer="dense")
    with pytest.raises(ValueError, match="Unknown `layout`"):
        explain(conv_net, images, method="grad_cam", layout="sequence")
    with pytest.raises(ValueError, match="Unknown `score`: got 'prob'"):
        explain(conv_net, images, method="grad_cam", score="prob")
