"""Grad-CAM by NumPy, and the layer it finds."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_jsigr as kj
from keras_jsigr.saliency import GradCAM, explain, explainer
from keras_jsigr.saliency.methods.feature_layer import find_feature_layer

layers = keras.layers


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
    conv = layers.Conv2D(4, 3, strides=2, activation="tanh")
    dense = layers.Dense(3)
    inputs = keras.Input((8, 6, 2))
    outputs = dense(layers.GlobalAveragePooling2D()(conv(inputs)))
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
    softmax = keras.Sequential([*conv_net.layers, layers.Softmax()])
    got = explain(softmax, images, method=GradCAM(verbose=0))
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-7)
    assert "call" not in vars(conv_net.get_layer("last"))


class Subclassed(keras.Model):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def call(self, x):
        return self.inner(2.0 * x)


def test_subclassed_and_nested_models(conv_net, images):
    model = Subclassed(conv_net)
    model(images)
    run = explainer(model, images[:1], method="grad_cam", verbose=0)
    assert run.method.layer == "last"
    expected = explain(conv_net, 2.0 * images, method=GradCAM(verbose=0))
    np.testing.assert_allclose(run(images), expected, rtol=1e-5, atol=1e-7)


def test_normalization_and_activation_belong_to_the_convolution(images):
    relu, pool = layers.ReLU(name="relu"), layers.MaxPooling2D(2)
    convolution = [layers.Conv2D(3, 3), layers.BatchNormalization(), relu]
    ends = [layers.Flatten(), layers.Dropout(0.5), layers.Dense(2)]
    net = keras.Sequential([keras.Input((8, 6, 2)), *convolution, pool, *ends])
    assert find_feature_layer(net, images)[0] is relu
    patches = layers.Reshape((4, 3, 8), name="patches")
    net = keras.Sequential([keras.Input((8, 6, 2)), patches, layers.Flatten()])
    assert find_feature_layer(net, images) == (patches, (4, 3, 8), 0)


def test_a_convolution_as_head_tells_no_place(images):
    features = [layers.Conv2D(4, 3), layers.ReLU(name="relu")]
    pool = layers.GlobalAveragePooling2D(keepdims=True)
    ends = [pool, layers.Conv2D(3, 1), layers.Dropout(0.5), layers.Flatten()]
    net = keras.Sequential([keras.Input((8, 6, 2)), *features, *ends])
    assert find_feature_layer(net, images) == (features[1], (6, 4, 4), 0)
    maps = explain(net, images, method="grad_cam", verbose=0)
    assert np.ptp(maps, axis=(1, 2)).max() > 0
    points = keras.Sequential([keras.Input((1, 1, 2)), layers.Conv2D(3, 1), ends[-1]])
    found = find_feature_layer(points, images[:, :1, :1])
    assert found == (points.layers[0], (1, 1, 3), 0)


def test_one_of_several_calls_of_a_layer(images):
    """Told apart from its other calls, of which the last is no image."""
    first, last, end = layers.Conv2D(4, 3), layers.Conv2D(6, 3), layers.Dense(8)
    head = layers.Dense(3)

    def net(one, two, three):
        inputs = keras.Input((8, 6, 2))
        hidden = two(last(one(first(inputs))))
        return keras.Model(inputs, head(three(end(layers.Flatten()(hidden)))))

    own = net(layers.ReLU(), layers.ReLU(name="two"), layers.ReLU())
    expected = explain(own, images, method="grad_cam", verbose=0, layer="two")
    assert expected.max() > 0
    relu = layers.ReLU(name="shared")
    shared = net(relu, relu, relu)
    assert find_feature_layer(shared, images) == (relu, (4, 2, 6), 1)
    for layer in (None, "shared"):
        got = explain(shared, images, method="grad_cam", verbose=0, layer=layer)
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-7)


def test_a_later_call_of_another_resolution_plays_no_part(images):
    conv, head = layers.Conv2D(4, 3), layers.Dense(3)

    def net(one, two):
        inputs = keras.Input((8, 6, 2))
        pooled = layers.AveragePooling2D(2)(one(conv(inputs)))
        return keras.Model(inputs, head(layers.Flatten()(two(pooled))))

    own = net(layers.Activation("tanh", name="one"), layers.Activation("tanh"))
    tanh = layers.Activation("tanh", name="shared")
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
    inner = [layers.Conv2D(4, 3), layers.BatchNormalization(name="norm"), layers.ReLU()]
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
    got = explain(net, images, y, method="grad_cam", layer="norm", verbose=0)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-6)


def test_refused(conv_net, images, rng):
    with pytest.raises(TypeError, match="expected a Keras model"):
        explain(lambda x: x[:, 0, 0], images, method="grad_cam")
    with pytest.raises(ValueError, match=r"Got layer 'none'.*first, last"):
        explain(conv_net, images, method="grad_cam", layer="none")
    dense = keras.Sequential([keras.Input((4,)), layers.Dense(3, name="dense")])
    table = rng.random((2, 4)).astype("float32")
    with pytest.raises(ValueError, match=r"no layer has outputs \(B, H, W, C\)"):
        explain(dense, table, method="grad_cam")
    with pytest.raises(ValueError, match="not even layer 'dense'"):
        explain(dense, table, method="grad_cam", layer="dense")
    with pytest.raises(ValueError, match="Unknown `layout`"):
        explain(conv_net, images, method="grad_cam", layout="sequence")
    with pytest.raises(ValueError, match="Unknown `score`: got 'prob'"):
        explain(conv_net, images, method="grad_cam", score="prob")
