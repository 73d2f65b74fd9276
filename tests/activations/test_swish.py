"""`Swish`: what it computes, its derivatives, where it is kept."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_jsigr as kj

X = np.linspace(-4, 4, 81)


def net(activation):
    keras.utils.set_random_seed(0)
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(4, 3, activation=activation),
            layers.Flatten(),
            layers.Dense(6, activation=activation),
            layers.Dense(3),
        ]
    )


def test_beta_one_is_silu_and_a_large_one_relu():
    x = tf.constant(X, tf.float32)
    np.testing.assert_allclose(kj.Swish(1.0)(x), tf.nn.silu(x), rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(kj.Swish(1e4)(x), tf.nn.relu(x), atol=1e-4)


@pytest.mark.parametrize("beta", [0.5, 5.0, 20.0])
def test_it_is_silu_at_another_scale(beta):
    x = tf.constant(X)
    np.testing.assert_allclose(
        kj.Swish(beta)(x), tf.nn.silu(beta * x) / beta, rtol=1e-12, atol=1e-15
    )


@pytest.mark.parametrize("beta", [1.0, 5.0])
def test_derivatives_agree_with_differences(beta):
    swish, h = kj.Swish(beta), 1e-4
    x = tf.constant(X)
    with tf.GradientTape() as outer:
        outer.watch(x)
        with tf.GradientTape() as inner:
            inner.watch(x)
            y = swish(x)
        slope = inner.gradient(y, x)
    curvature = outer.gradient(slope, x)
    above, here, below = swish(x + h), swish(x), swish(x - h)
    np.testing.assert_allclose(slope, (above - below) / (2 * h), atol=1e-6 * beta**2)
    np.testing.assert_allclose(
        curvature, (above - 2 * here + below) / h**2, atol=1e-5 * beta**3
    )
    assert float(curvature[40]) == pytest.approx(beta / 2)


@pytest.mark.parametrize("beta", [0.0, -1.0, float("nan"), float("inf")])
def test_beta_is_positive(beta):
    with pytest.raises(ValueError, match="`beta`"):
        kj.Swish(beta)


def test_beta_is_a_number():
    with pytest.raises(TypeError, match="`beta`"):
        kj.Swish("5")


def test_it_is_saved_with_the_model(tmp_path):
    model = net(kj.Swish(3.0))
    x = np.random.default_rng(0).uniform(size=(5, 8, 8, 1)).astype("float32")
    model.save(tmp_path / "net.keras")
    loaded = keras.models.load_model(tmp_path / "net.keras")
    assert loaded.layers[0].activation == kj.Swish(3.0)
    np.testing.assert_array_equal(loaded(x), model(x))
    copy = keras.models.clone_model(model)
    assert copy.layers[2].activation == kj.Swish(3.0)


def test_it_takes_the_place_of_relu():
    smooth = kj.with_smooth_activations(net("relu"), kj.Swish(5.0))
    twin = net(kj.Swish(5.0))
    x = np.random.default_rng(1).uniform(size=(5, 8, 8, 1)).astype("float32")
    np.testing.assert_array_equal(smooth(x), twin(x))


@pytest.mark.parametrize("policy", ["float32", "mixed_float16", "mixed_bfloat16"])
def test_it_is_hardened_in_every_precision(policy):
    rng = np.random.default_rng(2)
    x = rng.uniform(size=(32, 8, 8, 1)).astype("float32")
    y = rng.integers(0, 3, 32)
    keras.config.set_dtype_policy(policy)
    try:
        model = net(kj.Swish())
    finally:
        keras.config.set_dtype_policy("float32")
    assert model.layers[0](x).dtype == model.layers[0].compute_dtype
    robust = kj.harden(model, verbose=0)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    robust.compile("adam", loss, jit_compile=policy == "float32")
    before = model.get_weights()
    history = robust.fit(x, y, epochs=1, batch_size=16, verbose=0).history
    assert all(np.isfinite(values).all() for values in history.values())
    moved = [
        np.abs(a - b).max() for a, b in zip(before, model.get_weights(), strict=True)
    ]
    assert min(moved) > 0
