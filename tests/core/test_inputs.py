"""What models take, and leaving them as they were."""

from concurrent.futures import ThreadPoolExecutor
from itertools import product
from typing import get_args

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_jsigr as kj
from keras_jsigr.core.batching import sequential_map
from keras_jsigr.core.files import atomic_write, write_whole
from keras_jsigr.core.inputs import (
    in_structure,
    input_specs,
    probe_batch,
    random_inputs_like,
    random_weights,
)
from keras_jsigr.core.random import StreamName, fold_in, named_seed

X = np.random.default_rng(0).uniform(size=(4, 8, 8, 2)).astype("float32")


def deep(depthwise=False):
    net = keras.Sequential([keras.Input((8, 8, 2))])
    for _ in range(12):
        if depthwise:
            net.add(layers.DepthwiseConv2D(3, padding="same", use_bias=False))
            net.add(layers.BatchNormalization())
            net.add(layers.ReLU())
        net.add(layers.Conv2D(8, 1 if depthwise else 3, padding="same"))
        net.add(layers.BatchNormalization())
        net.add(layers.ReLU())
    net.add(layers.Flatten())
    net.add(layers.Dense(3, kernel_initializer="zeros"))
    return net


@pytest.mark.parametrize("depthwise", [False, True])
def test_signals_go_all_the_way_and_the_model_is_as_before(depthwise):
    net = deep(depthwise)
    weights = [np.asarray(w) for w in net.weights]
    found = []
    for _ in range(2):
        with random_weights(net):
            found.append(net(np.concatenate([X, X[:, ::-1]])).numpy())
    np.testing.assert_array_equal(*found)
    first, second = np.split(found[0], 2)
    assert np.isfinite(first).all()
    assert np.abs(first).max() < 1e3
    assert np.abs(first - second).max() > 1e-3
    for before, after in zip(weights, net.weights, strict=True):
        np.testing.assert_array_equal(before, after)


def test_integers_stay():
    class Counts(keras.Layer):
        def build(self, shape):
            self.count = self.add_weight(shape=(2,), dtype="int32", initializer="ones")

        def call(self, x):
            return x[:, :2] * keras.ops.cast(self.count, x.dtype)

    net = keras.Sequential([keras.Input((3,)), Counts()])
    with random_weights(net):
        np.testing.assert_array_equal(net(np.ones((1, 3))), 1.0)


def test_inputs_keep_structure_shape_and_dtype():
    probe = {"a": np.full((2, 3), np.nan), "b": tf.constant([[1], [2]], tf.int32)}
    found = random_inputs_like(probe)
    assert found["a"].dtype == tf.float64
    assert found["a"].shape == (2, 3)
    assert np.ptp(found["a"]) > 0.1
    np.testing.assert_array_equal(found["b"], [[1], [2]])


class Simple(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(3)

    def call(self, x):
        return self.dense(x)


class Pair(Simple):
    def call(self, x):
        return self.dense(x["a"]) + self.dense(x["b"])


def test_one_input_of_any_batch_size():
    image = keras.Sequential([layers.Input((4, 4, 1), name="im"), layers.Flatten()])
    called = Simple()
    called(np.zeros((2, 5), "float32"))
    fixed = layers.Input(batch_shape=(7, 2))
    fixed = keras.Model(fixed, layers.Dense(1)(fixed))
    for model, shape in ((image, [4, 4, 1]), (called, [5]), (fixed, [2])):
        spec = input_specs(model)
        assert (spec.shape.as_list(), spec.dtype) == ([None, *shape], tf.float32)
    with pytest.raises(ValueError, match="is not built"):
        input_specs(keras.Sequential([layers.Dense(2)]))


def test_several_inputs_keep_names_dtypes_and_structure():
    a = layers.Input((2,), name="a")
    b = layers.Input((3,), dtype="int32", name="b")
    embedded = layers.Flatten()(layers.Embedding(4, 2)(b))
    model = keras.Model({"a": a, "b": b}, layers.Concatenate()([a, embedded]))
    specs = input_specs(model)
    assert set(specs) == {"a", "b"}
    assert (specs["a"].name, specs["a"].dtype) == ("a", tf.float32)
    assert (specs["b"].name, specs["b"].dtype) == ("b", tf.int32)
    inputs = [layers.Input((2,), name="u"), layers.Input((2,), name="v")]
    specs = input_specs(keras.Model(inputs, layers.Add()(inputs)))
    assert [spec.name for spec in specs] == ["u", "v"]
    model = Pair()
    model({"a": np.zeros((2, 5), "float32"), "b": np.zeros((2, 5), "float32")})
    specs = input_specs(model)
    assert {k: s.shape.as_list() for k, s in specs.items()} == {
        "a": [None, 5],
        "b": [None, 5],
    }
    assert len({spec.name for spec in specs.values()}) == 2


def test_probe_batch():
    inputs = {
        "x": keras.Input((None, 3), dtype="float16", name="x"),
        "i": keras.Input((4,), dtype="int32", name="i"),
        "flag": keras.Input((), dtype="bool", name="flag"),
    }
    model = keras.Model(inputs, layers.GlobalAveragePooling1D()(inputs["x"]))
    specs = input_specs(model)
    batch = probe_batch(model, specs, (-2.0, -1.0), size=3)
    assert batch["x"].shape == (3, 32, 3)
    assert batch["x"].dtype == tf.float16
    assert float(tf.reduce_min(batch["x"])) >= -2.0
    assert float(tf.reduce_max(batch["x"])) <= -1.0
    assert not batch["i"].numpy().any()
    assert not batch["flag"].numpy().any()
    again = probe_batch(model, specs, (-2.0, -1.0), 3)
    np.testing.assert_array_equal(batch["x"], again["x"])


class Positions(layers.Layer):
    """Adds the entries of a table that ends after `longest` steps."""

    def __init__(self, longest):
        super().__init__()
        self.longest = longest

    def build(self, shape):
        self.table = self.add_weight((self.longest, shape[-1]))

    def call(self, x):
        return x + self.table[: keras.ops.shape(x)[1]]


def series(*body):
    inputs = keras.Input((None, 2))
    x = inputs
    for layer in body:
        x = layer(x)
    return keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling1D()(x)))


def test_open_sides_have_a_length_that_the_model_takes():
    for layer, side in (
        (Positions(20), 16),
        (layers.Conv1D(2, 50), 64),
        (layers.Conv1D(2, 80, strides=16), 128),  # 64 steps leave none, without an error
        (layers.Conv1D(2, 3), 32),
    ):
        model = series(layer)
        assert probe_batch(model, input_specs(model)).shape == (2, side, 2)
        recipe = kj.JSIGRConfig(selection="all")
        assert kj.harden(model, 0.1, recipe, verbose=0).classes == 3
    with pytest.raises(ValueError, match="fixed shape"):
        kj.harden(series(layers.Conv1D(2, 600)), 0.1, verbose=0)


def test_columns_of_a_data_frame():
    class Column:  # as of pandas: no indices beyond its own
        shape = (3,)

        def __array__(self, dtype=None, copy=None):
            return np.arange(3.0)

    specs = {"a": tf.TensorSpec((None, 1), tf.float32, name="a")}
    (leaf,) = in_structure({"a": Column()}, specs).values()
    assert leaf.tolist() == [[0.0], [1.0], [2.0]]


def test_all_streams_differ():
    names = product(get_args(StreamName), range(120))
    seeds = [tuple(np.asarray(named_seed([3, 5], *name))) for name in names]
    assert len(set(seeds)) == len(seeds)
    assert seeds[0] != tuple(np.asarray(named_seed([3, 6], "selection")))


@pytest.mark.slow
def test_what_is_drawn_from_one_stream_is_not_drawn_from_the_next():
    """Patterns of the noise of an input, and their places, have seeds of their own."""
    numbers = [*range(1, 20), *range(1000, 1020)]
    streams = [named_seed([3, 5], "noise", index) for index in range(40)]
    derived = [fold_in(each, number) for each, number in product(streams, numbers)]
    seeds = [tuple(np.asarray(seed)) for seed in [*streams, *derived]]
    assert len(set(seeds)) == len(seeds)


def test_threads_that_write_one_file(tmp_path):
    path, contents = tmp_path / "file", [bytes([n]) * 300_000 for n in range(4)]

    def write_and_read(content):
        for _ in range(10):
            write_whole(path, content)
            assert path.read_bytes() in contents

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write_and_read, contents))
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_an_error_leaves_the_old_file(tmp_path):
    path = tmp_path / "new" / "file"
    write_whole(path, b"old")

    def fail():
        with atomic_write(path) as file:
            file.write(b"half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail()
    assert path.read_bytes() == b"old"
    assert len(list(path.parent.iterdir())) == 1


def test_it_maps_as_tensorflow_does_whatever_the_shapes():
    elements = tf.constant(np.random.default_rng(0).random((5, 3)), tf.float32)
    ours = sequential_map(tf.cumsum, elements, (3,))
    np.testing.assert_array_equal(ours, tf.map_fn(tf.cumsum, elements))
    x = tf.constant([1.0, 2.0])
    with tf.GradientTape() as tape:
        tape.watch(x)
        total = tf.reduce_sum(sequential_map(tf.square, x, ()))
    np.testing.assert_array_equal(tape.gradient(total, x), [2.0, 4.0])

    @tf.function(input_signature=[tf.TensorSpec((None, None))], autograph=False)
    def squared(x):
        return sequential_map(tf.square, x, (None,))

    assert squared.get_concrete_function().output_shapes == tf.TensorShape([None, None])
    np.testing.assert_array_equal(squared(tf.constant([[2.0], [3.0]])), [[4.0], [9.0]])


def test_an_error_leaves_nothing_behind():
    def broken(t):
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        tf.function(lambda: sequential_map(broken, tf.zeros(2), ()), autograph=False)()
    # After tf.map_fn: "Caching devices is not yet supported".
    with tf.distribute.MirroredStrategy(
        ["CPU:0", "CPU:1"], cross_device_ops=tf.distribute.ReductionToOneDevice()
    ).scope():
        assert tf.distribute.has_strategy()
