"""What models take, and leaving them as they were."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keras_jsigr.core.inputs import input_specs, probe_batch, unchanged_state


class Simple(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(3)

    def call(self, x):
        return self.dense(x)


class Pair(Simple):
    def call(self, x):
        return self.dense(x["a"]) + self.dense(x["b"])


def test_sequential():
    model = keras.Sequential([layers.Input((4, 4, 1), name="im"), layers.Flatten()])
    spec = input_specs(model)
    assert (spec.shape.as_list(), spec.dtype) == ([None, 4, 4, 1], tf.float32)


def test_functional_dict_keeps_names_dtypes_and_structure():
    a = layers.Input((2,), name="a")
    b = layers.Input((3,), dtype="int32", name="b")
    embedded = layers.Flatten()(layers.Embedding(4, 2)(b))
    model = keras.Model({"a": a, "b": b}, layers.Concatenate()([a, embedded]))
    specs = input_specs(model)
    assert set(specs) == {"a", "b"}
    assert (specs["a"].name, specs["a"].dtype) == ("a", tf.float32)
    assert (specs["b"].name, specs["b"].dtype) == ("b", tf.int32)


def test_functional_list():
    inputs = [layers.Input((2,), name="u"), layers.Input((2,), name="v")]
    specs = input_specs(keras.Model(inputs, layers.Add()(inputs)))
    assert [spec.name for spec in specs] == ["u", "v"]


def test_functional_of_a_fixed_batch_takes_any():
    inputs = layers.Input(batch_shape=(7, 2))
    model = keras.Model(inputs, layers.Dense(1)(inputs))
    assert input_specs(model).shape.as_list() == [None, 2]


def test_subclassed():
    model = Simple()
    model(np.zeros((2, 5), "float32"))
    spec = input_specs(model)
    assert (spec.shape.as_list(), spec.dtype) == ([None, 5], tf.float32)


def test_subclassed_dict():
    model = Pair()
    model({"a": np.zeros((2, 5), "float32"), "b": np.zeros((2, 5), "float32")})
    specs = input_specs(model)
    assert {k: s.shape.as_list() for k, s in specs.items()} == {
        "a": [None, 5],
        "b": [None, 5],
    }
    assert len({spec.name for spec in specs.values()}) == 2


def test_unbuilt():
    with pytest.raises(ValueError, match="is not built"):
        input_specs(keras.Sequential([layers.Dense(2)]))


def test_probe_batch():
    specs = {
        "x": tf.TensorSpec((None, None, 3), tf.float16),
        "i": tf.TensorSpec((None, 4), tf.int32),
        "flag": tf.TensorSpec((None,), tf.bool),
    }
    batch = probe_batch(specs, (-2.0, -1.0), size=3)
    assert batch["x"].shape == (3, 32, 3)
    assert batch["x"].dtype == tf.float16
    assert float(tf.reduce_min(batch["x"])) >= -2.0
    assert float(tf.reduce_max(batch["x"])) <= -1.0
    assert not batch["i"].numpy().any()
    assert not batch["flag"].numpy().any()
    np.testing.assert_array_equal(batch["x"], probe_batch(specs, (-2.0, -1.0), 3)["x"])


def test_unchanged_state_restores_statistics_and_seeds():
    model = keras.Sequential(
        [
            layers.Input((3,)),
            layers.BatchNormalization(),
            keras.Sequential([layers.Dropout(0.5), layers.GaussianNoise(1.0)]),
        ]
    )
    x = np.random.default_rng(0).normal(5, 2, (4, 3)).astype("float32")
    before = [v.numpy() for v in model.variables]
    with unchanged_state(model):
        first = model(x, training=True)
    with pytest.raises(ZeroDivisionError), unchanged_state(model):
        model(x, training=True).numpy() / (1 // 0)
    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)
    np.testing.assert_array_equal(model(x, training=True), first)  # the same mask
    assert any(
        not np.array_equal(v.numpy(), b)
        for v, b in zip(model.variables, before, strict=True)
    )
