"""Moments whose second derivatives are right, and the proof that they are needed."""

import threading

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keras_jsigr.core import exact_moments as module
from keras_jsigr.core.exact_moments import exact_moments, moments
from keras_jsigr.core.inputs import unchanged_state

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
