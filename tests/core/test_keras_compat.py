"""Moments whose second derivatives are right, and the proof that they are needed."""

import contextlib
import inspect
import itertools
import threading

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keras_jsigr.core.keras_compat import (
    altered_layers,
    compiled_losses,
    exact_moments,
    layer_calls,
    leaf_layers,
    moments,
    only_call,
    untested_versions,
)
from keras_jsigr.core.variables import stateless

LAYERS = {
    "batch": layers.BatchNormalization,
    "layer": layers.LayerNormalization,
    "group": lambda **kwargs: layers.GroupNormalization(2, **kwargs),
}


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_values_are_those_of_tensorflow(rng, dtype):
    x = tf.cast(rng.standard_normal((4, 5, 6)) + 3.0, dtype)
    tolerance = {"float16": 1e-3, "bfloat16": 1e-2}.get(dtype, 1e-5)
    every_axes = ([0], [0, 1], [-1], 1, [0, 1, 2])
    for axes, keepdims in itertools.product(every_axes, (False, True)):
        ours = moments(x, axes, keepdims=keepdims)
        theirs = tf.nn.moments(x, np.ravel(axes).tolist(), keepdims=keepdims)
        for left, right in zip(ours, theirs, strict=True):
            assert left.dtype == right.dtype
            assert left.shape == right.shape
            np.testing.assert_allclose(
                tf.cast(left, "float64"), tf.cast(right, "float64"), rtol=tolerance
            )


def test_float16_does_not_overflow():
    x = tf.constant([300.0, -300.0] * 400, tf.float16)
    mean, variance = moments(x, [0])
    assert (float(mean), np.isinf(variance)) == (0.0, True)  # 9e4 is no float16
    assert float(moments(x / 10, [0])[1]) == pytest.approx(900.0, rel=1e-2)


def second_order_error(make, numeric_gradient, guard):
    """Worst relative error of the weight gradient of an input gradient norm."""
    rng = np.random.default_rng(0)
    layer = make(dtype="float64")
    x = tf.constant(rng.standard_normal((6, 4)))
    v = tf.constant(rng.standard_normal((6, 4)))
    layer.build((None, 4))

    def penalty(scale):
        with tf.GradientTape() as tape:
            tape.watch(x)
            with stateless():
                z = layer(tf.tanh(x * scale), training=True)
            total = tf.reduce_sum(v * tf.sin(z))
        return tf.reduce_sum(tf.square(tape.gradient(total, x)))

    scale = tf.constant(rng.uniform(0.5, 1.5, 4))
    with guard():
        with tf.GradientTape() as tape:
            tape.watch(scale)
            value = penalty(scale)
        derivative = tape.gradient(value, scale).numpy()
        wanted = numeric_gradient(penalty, scale)
    return np.abs(derivative - wanted).max() / np.abs(wanted).max()


@pytest.mark.parametrize("name", LAYERS)
def test_second_derivatives_of_normalization(numeric_gradient, name):
    assert second_order_error(LAYERS[name], numeric_gradient, exact_moments) < 1e-5
    # If this fails, TensorFlow or Keras mended it and the module can go.
    assert second_order_error(LAYERS[name], numeric_gradient, contextlib.nullcontext) > 1e-4


def in_another_thread(function):
    """Return what a function returns in a thread of its own."""
    found = []
    thread = threading.Thread(target=lambda: found.append(function()))
    thread.start()
    thread.join()
    return found[0]


def is_exact():
    """Tell whether this thread's moments have a gradient through their mean."""
    x = tf.constant([1.0, 3.0, 8.0])
    with tf.GradientTape() as outer:
        outer.watch(x)
        with tf.GradientTape() as inner:
            inner.watch(x)
            variance = tf.nn.moments(x, [0])[1]
        first = inner.gradient(variance, x)
    second = outer.gradient(first, x)  # row sums of the Hessian: zero when exact
    return bool(np.abs(second).max() < 1e-6)


def test_exact_moments_are_of_one_thread_and_nest():
    function = tf.nn.moments
    assert not is_exact()
    with exact_moments():
        with exact_moments():
            assert is_exact()
        assert is_exact()
        assert not in_another_thread(is_exact)
        assert tf.nn.moments is function
    with pytest.raises(RuntimeError), exact_moments():
        raise RuntimeError
    assert not is_exact()


def double(layer, call, *args, **kwargs):
    return 2.0 * call(*args, **kwargs)


def test_hooks_are_of_one_thread_and_nest():
    layer = layers.Activation("relu")
    net = keras.Sequential([keras.Input((1,)), layer])
    attributes = dict(vars(layer))

    def ask():
        return float(net(np.ones((1, 1), "float32"))[0, 0])

    with layer_calls([layer, layer], double):
        assert (ask(), in_another_thread(ask)) == (2.0, 1.0)
        with layer_calls([layer], double):
            assert ask() == 4.0
        assert ask() == 2.0
    with pytest.raises(RuntimeError), layer_calls([layer], double):
        raise RuntimeError
    assert ask() == 1.0
    assert vars(layer) == attributes


def test_a_graph_traced_meanwhile_elsewhere_has_no_hook():
    layer = layers.Dense(1, activation="sigmoid", kernel_initializer="ones")
    net = keras.Sequential([keras.Input((1,)), layer])
    traced = tf.function(net)
    x = tf.ones((1, 1))
    linear = {"activation": keras.activations.linear}
    with altered_layers([layer], lambda _: linear):
        there = in_another_thread(lambda: float(traced(x)[0, 0]))
        assert float(net(x)[0, 0]) == 1.0
    assert there == pytest.approx(1 / (1 + np.exp(-1.0)))
    assert float(traced(x)[0, 0]) == there


def test_only_one_call_is_hooked():
    layer, x = layers.Activation("relu"), np.ones((1, 1), "float32")
    with layer_calls([layer], only_call(1, double)):
        assert [float(layer(x)[0, 0]) for _ in range(3)] == [1.0, 2.0, 1.0]


def test_altered_layers_share_variables_and_are_seen_by_hooks():
    layer = layers.Dense(2, activation="softmax")
    net = keras.Sequential([keras.Input((2,)), layer])
    attributes, seen = dict(vars(layer)), []
    linear = {"activation": keras.activations.linear}

    def see(layer, call, *args, **kwargs):
        seen.append(layer)
        return call(*args, **kwargs)

    x = np.ones((1, 2), "float32")
    with (
        layer_calls([layer], see),
        altered_layers([layer], lambda _: linear),
        tf.GradientTape() as tape,
    ):
        logits = net(x)
    np.testing.assert_allclose(logits, layer.kernel.numpy().sum(0)[None], rtol=1e-5)
    assert tape.gradient(logits, layer.kernel.value) is not None
    assert seen == [layer]
    assert vars(layer) == attributes
    np.testing.assert_allclose(net(x), tf.nn.softmax(logits), rtol=1e-5)


def test_altered_layers_inside_of_layers_that_call_them_directly():
    inner = layers.Dense(1, activation="sigmoid", kernel_initializer="ones")
    outer = layers.TimeDistributed(inner)
    net = keras.Sequential([keras.Input((3, 1)), outer])
    linear = {"activation": keras.activations.linear}
    with altered_layers([outer, inner], lambda each: linear if each is inner else {}):
        assert net(np.ones((1, 3, 1), "float32")).numpy().ravel().tolist() == [1.0] * 3


def test_stateless_discards_what_layers_assign():
    net = keras.Sequential(
        [keras.Input((2,)), layers.BatchNormalization(), layers.Dropout(0.5, seed=1)]
    )
    before = [np.array(v) for v in net.variables]
    x = np.random.default_rng(0).random((4, 2), "float32")
    with stateless():
        first = net(x, training=True)
        with stateless([(net.layers[0].beta, tf.ones(2))]):
            inner = net(0.0 * x)
        moved = net(x, training=True)
    np.testing.assert_array_equal(inner, np.ones((4, 2)))
    assert np.any(first != moved)  # inside of a block seeds go on
    for value, variable in zip(before, net.variables, strict=True):
        np.testing.assert_array_equal(value, variable)
    with stateless():
        again = net(x, training=True)
    np.testing.assert_array_equal(first, again)


class Block(layers.Layer):
    """A composite layer with layers in a list and in an attribute."""

    def __init__(self):
        super().__init__()
        self.first = layers.Dense(2)
        self.rest = [layers.Dense(2), layers.ReLU()]

    def call(self, x):
        x = self.first(x)
        for layer in self.rest:
            x = layer(x)
        return x


def test_flatten_layers_has_the_arguments_in_use():
    parameters = inspect.signature(keras.Model._flatten_layers).parameters
    assert {"include_self", "recursive"} <= set(parameters)


def test_leaves_of_composite_layers_and_nested_models():
    inner = keras.Sequential([layers.Input((2,)), layers.Dense(2, name="inner")])
    block = Block()
    model = keras.Sequential([layers.Input((2,)), block, inner, layers.Dense(1, name="last")])
    leaves = leaf_layers(model)
    assert {block.first, *block.rest} <= set(leaves)
    assert {"inner", "last"} <= {layer.name for layer in leaves}
    assert block not in leaves
    assert not any(isinstance(x, (keras.Model, layers.InputLayer)) for x in leaves)


def test_a_shared_layer_is_listed_once():
    shared = layers.Dense(2)
    inputs = layers.Input((2,))
    model = keras.Model(inputs, shared(shared(inputs)))
    assert leaf_layers(model) == [shared]


def test_compiled_losses():
    model = keras.Sequential([layers.Input((2,)), layers.Dense(1)])
    assert compiled_losses(model) == []

    def own(y, p):
        return keras.ops.mean(y - p)

    loss = keras.losses.BinaryCrossentropy()
    for given, listed in (("mse", ["mse"]), (loss, [loss]), (own, [own])):
        model.compile(loss=given)
        assert compiled_losses(model) == listed
    model.compile(loss=[loss])
    assert compiled_losses(model) == [loss]


X = np.ones((1, 2), "float32")


@pytest.fixture
def net():
    return keras.Sequential([keras.Input((2,)), layers.Dense(3, name="dense")])


def test_inner_blocks_see_outer_ones(net):
    dense = net.get_layer("dense")
    expected = net(X)

    def more(_, call, inputs, **kwargs):
        return call(inputs, **kwargs) + 1.0

    def twice(_, call, inputs, **kwargs):
        return 2.0 * call(inputs, **kwargs)

    with layer_calls([dense], more), layer_calls([dense], twice):
        np.testing.assert_allclose(net(X), 2.0 * (expected + 1.0), rtol=1e-6)
    np.testing.assert_array_equal(net(X), expected)
    assert "call" not in vars(dense)


def test_undone_after_an_error(net):
    expected = net(X)

    def fail(*_, **__):
        raise RuntimeError("no")

    with (
        pytest.raises(RuntimeError, match="no"),
        layer_calls([net.get_layer("dense")], fail),
    ):
        net(X)
    np.testing.assert_array_equal(net(X), expected)


@pytest.mark.parametrize(
    ("installed", "told"),
    [
        ({"tensorflow": "2.18.1", "keras": "3.15.1"}, ()),
        ({"tensorflow": "2.22.0rc0", "keras": "3.15.1"}, ("tensorflow 2.22.0rc0", "2.21")),
        ({"tensorflow": "3.0.0", "keras": "4.0.1"}, ("tensorflow 3.0.0", "keras 4.0.1")),
    ],
)
def test_releases_newer_than_tested_are_told(installed, told):
    text = untested_versions(installed)
    assert bool(text) == bool(told)
    assert all(part in text for part in told)
