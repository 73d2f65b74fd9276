"""Datasets are read once, in blocks of one size, and never looked at in vain."""

import threading
import time

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_jsigr.core.streams import Blocks, block_size, is_stream, parallel_map

RNG = np.random.default_rng(0)
X = RNG.uniform(size=(23, 4, 3)).astype("float32")
Y = np.arange(23) % 3


class Batches(keras.utils.PyDataset):
    """Batches of five; the earlier ones are the slower ones."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.read = []
        self.threads = set()

    def __len__(self):
        return 5

    def __getitem__(self, number):
        self.read.append(number)
        self.threads.add(threading.get_ident())
        time.sleep(0.004 * (5 - number))
        rows = slice(5 * number, 5 * number + 5)
        return X[rows], Y[rows], np.ones(len(X[rows]))


def dataset(x=X, y=Y, size=7):
    return tf.data.Dataset.from_tensor_slices((x, y)).batch(size)


def generator(elements, *types):
    return tf.data.Dataset.from_generator(lambda: elements, types if types[1:] else types[0])


KINDS = {
    "dataset": dataset,
    "small batches": lambda: dataset(size=1),
    "large batches": lambda: dataset(size=100),
    "weights": lambda: tf.data.Dataset.from_tensor_slices((X, Y, Y)).batch(7),
    "of unknown length": lambda: dataset().filter(lambda x, y: True),
    "generator": lambda: generator(((x, y) for x, y in dataset(size=9)), tf.float32, tf.int64),
    "dictionary": lambda: tf.data.Dataset.from_tensor_slices(({"x": X}, {"y": Y})).batch(7),
    "PyDataset": Batches,
    "PyDataset with workers": lambda: Batches(workers=3),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_blocks_as_of_arrays(kind):
    data = KINDS[kind]()
    assert is_stream(data)
    wanted = list(Blocks(X, Y, size=4))
    found = list(Blocks(data, size=4))
    assert [block.first for block in found] == [block.first for block in wanted]
    for block, other in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(block.x, other.x)
        np.testing.assert_array_equal(block.y, other.y)


def test_inputs_alone_have_no_labels():
    for data in (tf.data.Dataset.from_tensor_slices(X).batch(7), dataset().map(lambda x, y: (x,))):
        blocks = list(Blocks(data, size=10))
        assert [len(block.x) for block in blocks] == [10, 10, 3]
        assert [block.y for block in blocks] == [None] * 3


def test_the_input_of_the_model_is_taken():
    model = keras.Sequential([keras.Input((4, 3), name="sound"), keras.layers.Flatten()])
    data = tf.data.Dataset.from_tensor_slices(({"other": Y, "sound": X}, Y)).batch(7)
    np.testing.assert_array_equal(Blocks(data, model=model).head.x, X)
    with pytest.raises(ValueError, match=r"several inputs: got \['other', 'sound'\]"):
        Blocks(data)


def test_one_pass_and_nothing_is_read_in_vain():
    data = Batches()
    blocks = Blocks(data, size=4)
    assert data.read == [0]
    assert len(blocks.head.x) == 4
    assert sum(len(block.x) for block in blocks) == 23
    assert data.read == [0, 1, 2, 3, 4]


def test_workers_read_ahead_but_not_all():
    data = Batches(workers=2)
    blocks = Blocks(data, size=5)
    next(blocks)
    time.sleep(0.2)
    assert 2 <= len(data.read) < 5
    list(blocks)
    assert len(data.threads) == 2
    assert sorted(data.read) == [0, 1, 2, 3, 4]


def test_an_endless_source_is_not_read_to_its_end():
    seen = []

    def count():
        while True:
            seen.append(1)
            yield len(seen)

    for workers in (1, 3):
        seen.clear()
        squares = parallel_map(lambda n: n * n, count(), workers)
        assert [next(squares) for _ in range(3)] == [1, 4, 9]
        squares.close()
        assert len(seen) <= 3 + workers


def test_the_size_of_a_block_follows_the_size_of_the_examples():
    assert block_size(np.zeros((1, 28, 28, 1), "float32")) == 4096
    assert block_size(np.zeros((1, 224, 224, 3), "float32")) == 512
    assert block_size(tf.zeros((1, 96, 96, 3))) == 2**28 // (96 * 96 * 3 * 4)
    assert block_size(X, batch_size=128) == 1024
    assert block_size(np.zeros((1, 224, 224, 3), "float32"), batch_size=100) == 500
    assert block_size(X, batch_size=10_000) == 10_000


def sparse(x, y):
    return tf.sparse.from_dense(x), y


def twice(x, y):
    return (x, x), y


def taken(x, y):
    return x[:3], y


REFUSED = {
    "examples": (lambda: dataset().unbatch(), "not batched.*dataset.batch"),
    "one-hot examples": (lambda: dataset(y=np.eye(3)[Y]).unbatch(), r"not batched.*\(4, 3\)"),
    "other labels": (lambda: dataset().map(lambda x, y: (x, y[:2])), "not batched"),
    "endless": (lambda: dataset().repeat(), "never ends.*take"),
    "nothing": (lambda: dataset().take(0), "dataset is empty"),
    "two inputs": (lambda: dataset().map(twice), "several inputs: got 2 arrays"),
    "sparse": (lambda: dataset().map(sparse), "SparseTensor.*to_dense"),
    "lengths": (
        lambda: generator([(X[:2], Y[:2]), (X[:2, :3], Y[:2])], tf.float32, tf.int64),
        r"Batch 1 has.*\(3, 3\).*pad",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_read_is_refused_in_words(kind):
    make, match = REFUSED[kind]
    with pytest.raises((TypeError, ValueError), match=match):
        list(Blocks(make(), size=4))


def test_batched_by_the_model_alone():
    """Inputs without labels, of a model that knows their shape."""
    model = keras.Sequential([keras.Input((4, 3)), keras.layers.Flatten()])
    with pytest.raises(ValueError, match="not batched"):
        Blocks(tf.data.Dataset.from_tensor_slices(X), model=model)


def test_a_dataset_brings_its_labels():
    with pytest.raises(ValueError, match="expected y=None"):
        Blocks(dataset(), Y)


def test_endless_py_datasets_are_refused():
    class Endless(Batches):
        num_batches = None

    with pytest.raises(ValueError, match="`Endless` never ends"):
        Blocks(Endless())


def test_errors_of_the_source_come_through():
    class Broken(Batches):
        def __getitem__(self, number):
            if number == 2:
                raise OSError("disk gone")
            return super().__getitem__(number)

    for workers in (1, 3):
        with pytest.raises(OSError, match="disk gone"):
            list(Blocks(Broken(workers=workers), size=5))
