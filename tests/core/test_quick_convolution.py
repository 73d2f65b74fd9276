"""Quick convolutions are convolutions, and of all else the block keeps out."""

import gc
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_jsigr as kj
from keras_jsigr.core import quick_convolution as module
from keras_jsigr.core.quick_convolution import quick, quick_convolutions

SLOW = "Conv2DBackpropInput"


@pytest.fixture(autouse=True)
def with_onednn(monkeypatch):
    """Be quick on every processor."""
    monkeypatch.setattr(module, "onednn_is_used", lambda: True)


def drawn(rng, *shape):
    return tf.constant(rng.standard_normal(shape), tf.float32)


def derivatives(convolution, image, kernel, strides, padding):
    """Return an output and derivatives of it up to the third order."""
    with tf.GradientTape(persistent=True) as third:
        third.watch([image, kernel])
        with tf.GradientTape(persistent=True) as second:
            second.watch([image, kernel])
            with tf.GradientTape() as first:
                first.watch([image, kernel])
                z = convolution(image, kernel, strides, padding)
                value = tf.reduce_sum(tf.sin(z))
            of_image, of_kernel = first.gradient(value, [image, kernel])
            norm = tf.reduce_sum(of_image**2) + tf.reduce_sum(tf.sin(of_kernel))
        twice = second.gradient(norm, [image, kernel])
        total = tf.add_n([tf.reduce_sum(g**2) for g in twice])
    return [z, of_image, of_kernel, *twice, *third.gradient(total, [image, kernel])]


@pytest.mark.parametrize("mode", ["eager", "graph", "xla"])
@pytest.mark.parametrize(
    ("image", "kernel", "strides", "padding"),
    [
        ((3, 9, 9, 1), (4, 4, 1, 5), 2, "VALID"),
        ((2, 8, 6, 3), (3, 3, 3, 4), (1, 1), "SAME"),
        ((2, 7, 8, 4), (2, 5, 4, 2), [1, 3], "SAME"),
    ],
)
def test_derivatives_are_those_of_tensorflow(
    rng, image, kernel, strides, padding, mode
):
    def ours(*values):
        return derivatives(quick(None), *values, strides, padding)

    # Of the third order TensorFlow's own are defined in graphs alone.
    @tf.function
    def theirs(*values):
        return derivatives(tf.nn.convolution, *values, strides, padding)

    values = drawn(rng, *image), 0.3 * drawn(rng, *kernel)
    if mode != "eager":
        ours = tf.function(ours, jit_compile=mode == "xla")
    for got, expected in zip(ours(*values), theirs(*values), strict=True):
        assert got.shape == expected.shape
        scale = float(tf.reduce_max(tf.abs(expected)))
        np.testing.assert_allclose(got, expected, atol=1e-5 * scale)


def operations(graph):
    """Count the operations of a graph and of all functions it calls."""
    definition = graph.as_graph_def()
    nodes = [*definition.node]
    for function in definition.library.function:
        nodes += function.node_def
    return [node.op for node in nodes]


def gradient_operations(layer, shape):
    @tf.function(input_signature=[tf.TensorSpec(shape)])
    def gradient(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            with quick_convolutions():
                z = layer(x)
        return tape.gradient(z, x)

    return operations(gradient.get_concrete_function().graph)


@pytest.mark.parametrize(
    "layer",
    [
        layers.Conv2D(4, 3),
        layers.Conv2D(4, (2, 3), strides=2, padding="same", activation="relu"),
    ],
)
def test_convolutions_of_keras_are_quick(layer):
    assert SLOW not in gradient_operations(layer, (None, 8, 8, 3))
    assert SLOW in gradient_operations(layers.Conv2D(4, 3), (None, 8, 8, 5))


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (layers.Conv2D(4, 3), (None, 8, 8, 5)),
        (layers.Conv2D(4, 3), (None, None, 8, 1)),
        (layers.Conv2D(4, 3, dilation_rate=2), (None, 8, 8, 1)),
        (layers.Conv1D(4, 3), (None, 8, 1)),
        (layers.Conv3D(4, 3), (None, 8, 8, 8, 1)),
        (layers.DepthwiseConv2D(3), (None, 8, 8, 3)),
        (layers.Conv2D(4, 3, dtype="float64"), (None, 8, 8, 3)),
        (layers.Conv2D(4, 3, dtype="mixed_float16"), (None, 8, 8, 3)),
    ],
)
def test_others_are_left_alone(layer, shape):
    found = gradient_operations(layer, shape)
    assert any("Backprop" in name for name in found)
    assert not any("PartitionedCall" in name for name in found)


def test_groups_and_what_is_empty_are_left_alone(rng):
    seen = []
    convolve = quick(lambda *given, **rest: seen.append((given, rest)))
    image = drawn(rng, 1, 4, 4, 4)
    convolve(image, drawn(rng, 3, 3, 2, 4), 1, "SAME")
    convolve(image, drawn(rng, 5, 3, 4, 2), 1, "VALID")
    convolve(image, drawn(rng, 3, 3, 4, 2), 1, "SAME", data_format="NCHW")
    convolve(image, drawn(rng, 3, 3, 4, 2), padding=[[0, 0], [1, 1], [1, 1], [0, 0]])
    assert len(seen) == 4


@pytest.mark.parametrize("kernel", [None, (3, 3, 1, None), (None, 3, 1, 2)])
@pytest.mark.parametrize("image", [None, (1, 4, 4, 1)])
def test_what_is_not_known_is_left_alone(image, kernel):
    seen = []
    convolve = quick(lambda *given, **rest: seen.append(given))

    @tf.function(input_signature=[tf.TensorSpec(image), tf.TensorSpec(kernel)])
    def traced(x, w):
        convolve(x, w, 1, "SAME")

    traced.get_concrete_function()
    assert seen


def test_arguments_as_tensorflow_takes_them(rng):
    image, kernel = drawn(rng, 2, 6, 6, 2), drawn(rng, 3, 3, 2, 4)
    ours, theirs = quick(None), tf.nn.convolution
    for given in (
        {},
        {"strides": [2], "padding": "SAME"},
        {"strides": (1, 2), "padding": "VALID", "dilations": [1, 1], "name": "c"},
        {"data_format": "NHWC", "dilations": 1},
    ):
        expected = theirs(image, kernel, **given)
        np.testing.assert_array_equal(ours(image, kernel, **given), expected)
        by_name = ours(input=image, filters=kernel, **given)
        np.testing.assert_array_equal(by_name, expected)


@pytest.mark.parametrize("device", ["GPU", "TPU"])
def test_other_devices_know_better(monkeypatch, device):
    def devices():
        return [SimpleNamespace(device_type=kind) for kind in ("CPU", device)]

    monkeypatch.setattr(tf.config, "list_logical_devices", devices)
    before = tf.nn.convolution
    with quick_convolutions():
        assert tf.nn.convolution is before


def test_other_kernels_know_better(monkeypatch):
    monkeypatch.setattr(module, "onednn_is_used", lambda: False)
    before = tf.nn.convolution
    with quick_convolutions():
        assert tf.nn.convolution is before


def network():
    net = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(4, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(3),
        ]
    )
    net.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return net


def graphs_after_an_attack(x):
    kj.attacks.PGD(epsilon=0.1, steps=2)(network(), x, np.array([0, 1, 2, 0]))
    keras.utils.clear_session()
    gc.collect()
    return sum(isinstance(thing, tf.Graph) for thing in gc.get_objects())


def test_no_graph_of_a_model_is_kept(rng):
    x = rng.random((4, 8, 8, 1), "float32")
    first = graphs_after_an_attack(x)  # that of the geometry is
    assert graphs_after_an_attack(x) == first


def test_training_and_attacks_are_quick(rng, monkeypatch):
    shapes = []
    convolution_of = module._convolution_of

    def counted(geometry):
        shapes.append(geometry.image)
        return convolution_of(geometry)

    monkeypatch.setattr(module, "_convolution_of", counted)
    x, y = rng.random((4, 8, 8, 1), "float32"), np.array([0, 1, 2, 0])
    robust = kj.harden(network(), selective_weight=0.0)
    robust.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    robust.fit(x, y, verbose=0)
    assert set(shapes) == {(8, 8, 1)}
    shapes.clear()
    kj.attacks.PGD(epsilon=0.1, steps=2)(robust, x, y)
    assert shapes
    shapes.clear()
    robust.predict(x, verbose=0)
    assert not shapes
