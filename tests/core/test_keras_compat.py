"""Moments whose second derivatives are right, and the proof that they are needed."""

import inspect
import threading
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keras_jsigr.core import keras_compat as module
from keras_jsigr.core.inputs import unchanged_state
from keras_jsigr.core.keras_compat import (
    Exchanged,
    compiled_losses,
    exact_moments,
    layer_calls,
    leaf_layers,
    moments,
)

LAYERS = {
    "batch": layers.BatchNormalization,
    "layer": layers.LayerNormalization,
    "group": lambda **kwargs: layers.GroupNormalization(2, **kwargs),
}


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("axes", [[0], [0, 1], [-1], 1, [0, 1, 2]])
@pytest.mark.parametrize("keepdims", [False, True])
def test_values_are_those_of_tensorflow(rng, dtype, axes, keepdims):
    x = tf.cast(rng.standard_normal((4, 5, 6)) + 3.0, dtype)
    ours = moments(x, axes, keepdims=keepdims)
    axes = [axes] if isinstance(axes, int) else axes
    theirs = tf.nn.moments(x, axes, keepdims=keepdims)
    tolerance = {"float16": 1e-3, "bfloat16": 1e-2}.get(dtype, 1e-5)
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
            with unchanged_state(layer):
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


@pytest.mark.parametrize("name", LAYERS)
def test_without_it_they_are_wrong(numeric_gradient, name):
    """If this fails, TensorFlow or Keras mended it and the module can go."""

    class Nothing:
        def __enter__(self):
            pass

        def __exit__(self, *error):
            pass

    assert second_order_error(LAYERS[name], numeric_gradient, Nothing) > 1e-4


@pytest.mark.parametrize("name", LAYERS)
def test_keras_still_computes_its_moments_here(monkeypatch, name):
    calls = []
    original = module.moments

    def counted(*args, **kwargs):
        calls.append(args)
        return original(*args, **kwargs)

    monkeypatch.setattr(module, "moments", counted)
    layer = LAYERS[name]()
    with exact_moments():
        layer(np.ones((2, 4), "float32"), training=True)
    assert calls


def test_nesting_and_restoration():
    before = tf.nn.moments
    with exact_moments():
        assert tf.nn.moments is moments
        with exact_moments():
            assert tf.nn.moments is moments
        assert tf.nn.moments is moments
    assert tf.nn.moments is before
    with pytest.raises(RuntimeError), exact_moments(), exact_moments():
        raise RuntimeError
    assert tf.nn.moments is before


def test_threads_that_overlap():
    before, inside, leave = tf.nn.moments, threading.Event(), threading.Event()

    def longer():
        with exact_moments():
            inside.set()
            leave.wait(10)

    thread = threading.Thread(target=longer)
    with exact_moments():
        thread.start()
        inside.wait(10)
    assert tf.nn.moments is moments  # the other thread is still inside
    leave.set()
    thread.join()
    assert tf.nn.moments is before


def test_a_traced_function_keeps_them():
    layer = keras.layers.LayerNormalization()
    layer.build((None, 3))

    @tf.function
    def traced(x):
        with exact_moments():
            return layer(x)

    x = tf.constant([[1.0, 2.0, 4.0]])
    np.testing.assert_allclose(traced(x), layer(x), rtol=1e-5)


def test_blocks_nest():
    module = SimpleNamespace(f=lambda x: x)
    before, made = module.f, []

    def replacement(original):
        made.append(original)
        return lambda x: original(x) + 1

    exchanged = Exchanged(module, "f", replacement)
    with exchanged.block(), exchanged.block():
        assert module.f(1) == 2
    assert module.f is before
    with pytest.raises(RuntimeError), exchanged.block():
        raise RuntimeError
    assert module.f is before
    assert made == [before, before]


def test_what_another_put_there_is_put_back():
    module = SimpleNamespace(f="first")
    exchanged = Exchanged(module, "f", lambda _: "ours")
    module.f = "second"
    with exchanged.block():
        assert module.f == "ours"
    assert module.f == "second"


def test_threads_that_overlap_exchanged():
    module = SimpleNamespace(f="theirs")
    exchanged = Exchanged(module, "f", lambda _: "ours")
    inside, leave = threading.Event(), threading.Event()

    def longer():
        with exchanged.block():
            inside.set()
            leave.wait(10)

    thread = threading.Thread(target=longer)
    with exchanged.block():
        thread.start()
        assert inside.wait(10)
    assert module.f == "ours"
    leave.set()
    thread.join()
    assert module.f == "theirs"


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
    model = keras.Sequential(
        [layers.Input((2,)), block, inner, layers.Dense(1, name="last")]
    )
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
