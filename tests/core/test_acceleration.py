"""Folding batch normalization changes the number of operations and nothing else."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keras_jsigr.core.acceleration import fold_batchnorm
from keras_jsigr.core.logits import as_logits

RNG = np.random.default_rng(0)


IMAGES = RNG.uniform(0, 1, (3, 8, 8, 3)).astype("float32")


def shaken(model):
    """Give every normalization statistics that matter."""
    for variable in model.variables:
        value = RNG.uniform(0.5, 1.5, variable.shape)
        if "variance" not in variable.path:
            value = RNG.normal(0.0, 0.5, variable.shape)
        variable.assign(value.astype(variable.dtype))
    return model


def sequential(*inner, shape=(8, 8, 3)):
    pool = [layers.Flatten(), layers.Dense(4)]
    return shaken(keras.Sequential([keras.Input(shape), *inner, *pool]))


def norm(**kwargs):
    return layers.BatchNormalization(epsilon=0.1, **kwargs)


def residual():
    inputs = keras.Input((8, 8, 3))
    x = layers.ReLU()(norm()(layers.Conv2D(5, 3, padding="same")(inputs)))
    inner = norm()(layers.Conv2D(5, 3, padding="same", use_bias=False)(x))
    x = layers.ReLU()(x + inner)
    return shaken(keras.Model(inputs, layers.Dense(4)(layers.Flatten()(x))))


class Subclassed(keras.Model):
    def __init__(self, keyword=False):
        super().__init__()
        self.first, self.norm = layers.Conv2D(5, 3), norm()
        self.keyword = keyword
        self.tail = keras.Sequential([layers.ReLU(), layers.Flatten(), layers.Dense(4)])

    def call(self, x, training=False):
        x = self.first(x)
        if self.keyword:
            return self.tail(self.norm(inputs=x, training=training))
        return self.tail(self.norm(x, training=training))


def built(model):
    model(IMAGES)
    return shaken(model)


def plain(model):
    return lambda x: model(x, training=False)


MODELS = {
    "convolution": lambda: sequential(layers.Conv2D(5, 3), norm(), layers.ReLU()),
    "two blocks": residual,
    "strided, grouped": lambda: sequential(layers.Conv2D(6, 3, strides=2, groups=3), norm()),
    "depthwise": lambda: sequential(layers.DepthwiseConv2D(3, depth_multiplier=2), norm()),
    "dense": lambda: sequential(layers.Flatten(), layers.Dense(7), norm()),
    "dense on the last axis, no gamma": lambda: sequential(layers.Dense(7), norm(scale=False)),
    "no beta": lambda: sequential(layers.Conv2D(5, 3), norm(center=False)),
    "one dimension": lambda: sequential(layers.Reshape((64, 3)), layers.Conv1D(5, 3), norm()),
    "three dimensions": lambda: sequential(
        layers.Reshape((4, 4, 4, 3)), layers.Conv3D(5, 2), norm()
    ),
    "model in a model": lambda: sequential(
        keras.Sequential([keras.Input((8, 8, 3)), layers.Conv2D(5, 3), norm()])
    ),
    "subclassed": lambda: built(Subclassed()),
    "by keyword": lambda: built(Subclassed(keyword=True)),
}


@pytest.mark.parametrize("name", MODELS)
def test_same_logits_and_gradients_with_fewer_products(name):
    model, x = MODELS[name](), tf.constant(IMAGES)
    logits = plain(model)
    folded = fold_batchnorm(model, logits, x[:1])
    assert folded is not logits
    for ask in (folded, tf.function(folded)):
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(x)
            expected, got = logits(x), ask(x)
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(
            tape.gradient(got, x), tape.gradient(expected, x), rtol=1e-4, atol=1e-5
        )
    assert multiplications(folded) < multiplications(logits)


def multiplications(function):
    """Count the products of whole batches in a traced function."""
    spec = tf.TensorSpec([11, 8, 8, 3])
    graph = tf.function(function).get_concrete_function(spec).graph
    products = [op.outputs[0] for op in graph.get_operations() if op.type == "Mul"]
    return sum(bool(p.shape.rank) and p.shape[0] == 11 for p in products)


def test_later_training_is_seen():
    model = residual()
    folded = tf.function(fold_batchnorm(model, plain(model), IMAGES))
    before = folded(IMAGES)
    shaken(model)
    np.testing.assert_allclose(folded(IMAGES), model(IMAGES), rtol=1e-4, atol=1e-5)
    assert np.abs(before - folded(IMAGES)).max() > 0.1


def test_the_model_is_as_before():
    model = residual()
    expected = model(IMAGES)
    fold_batchnorm(model, plain(model), IMAGES)(IMAGES)
    np.testing.assert_array_equal(model(IMAGES), expected)
    assert not any("call" in vars(layer) for layer in model.layers)


class Branches(keras.Model):
    """Uses what the convolution returns for more than the normalization."""

    def __init__(self, use_bias=True):
        super().__init__()
        self.first, self.norm = layers.Conv2D(5, 3, use_bias=use_bias), norm()
        self.tail = keras.Sequential([layers.Flatten(), layers.Dense(4)])

    def call(self, x, training=False):
        x = self.first(x)
        return self.tail(x + self.norm(x, training=training))


class BatchStatistics(keras.Model):
    """Normalizes by the batch at inference, too."""

    def __init__(self):
        super().__init__()
        self.first, self.norm = layers.Conv2D(5, 3), norm()
        self.tail = keras.Sequential([layers.Flatten(), layers.Dense(4)])

    def call(self, x, training=False):
        return self.tail(self.norm(self.first(x), training=True))


def behind_a_head_of_zeros():
    model = built(Branches())
    model.tail.layers[-1].kernel.assign(tf.zeros_like(model.tail.layers[-1].kernel))
    return model


NOT_FOLDED = {
    "no normalization": lambda: sequential(layers.Conv2D(5, 3)),
    "activation in between": lambda: sequential(layers.Conv2D(5, 3, activation="relu"), norm()),
    "layer in between": lambda: sequential(layers.Conv2D(5, 3), layers.ReLU(), norm()),
    "other axis": lambda: sequential(layers.Conv2D(5, 3), norm(axis=1)),
    "first": lambda: sequential(norm(), layers.Conv2D(5, 3)),
    "half precision": lambda: sequential(
        layers.Conv2D(5, 3, dtype="mixed_float16"), norm(dtype="mixed_float16")
    ),
    "used twice": lambda: built(Branches()),
    "used twice, behind a head of zeros": behind_a_head_of_zeros,
    "batch statistics": lambda: built(BatchStatistics()),
}


@pytest.mark.parametrize("name", NOT_FOLDED)
def test_what_is_left_alone(name):
    model = NOT_FOLDED[name]()
    logits = plain(model)
    assert fold_batchnorm(model, logits, IMAGES) is logits


def test_a_black_probe_hides_no_other_use():
    model = built(Branches(use_bias=False))
    logits = plain(model)
    assert fold_batchnorm(model, logits, np.zeros_like(IMAGES)) is logits


class Noise(keras.Layer):
    """Draws new noise at every call, as a randomized defence does."""

    def __init__(self):
        super().__init__()
        self.seeds = keras.random.SeedGenerator(0)

    def call(self, x):
        return x + keras.random.normal(keras.ops.shape(x), seed=self.seeds)


def test_a_randomized_model_is_left_alone_and_stays_random():
    model = sequential(layers.Conv2D(5, 3), norm(), Noise())
    logits = as_logits(model, IMAGES)
    assert np.abs(logits(IMAGES) - logits(IMAGES)).max() > 0.1


def test_double_precision():
    keras.backend.set_floatx("float64")
    try:
        model = sequential(layers.Conv2D(5, 3, dtype="float64"), norm(dtype="float64"))
        x = IMAGES.astype("float64")
        folded = fold_batchnorm(model, plain(model), x)
        np.testing.assert_allclose(folded(x), model(x), rtol=1e-10, atol=1e-12)
    finally:
        keras.backend.set_floatx("float32")


def test_as_logits_folds_behind_a_head():
    model = residual()
    probabilities = keras.Model(model.inputs, layers.Activation("softmax")(model.outputs[0]))
    x = tf.constant(IMAGES)
    logits, whole = as_logits(probabilities, x), as_logits(probabilities, x, fold=False)
    np.testing.assert_allclose(logits(x), whole(x), rtol=1e-4, atol=1e-5)
    assert multiplications(logits) < multiplications(whole)
