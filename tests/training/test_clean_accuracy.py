"""Clean accuracy, against NumPy, for every kind of head, label and data."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_jsigr.core.heads import Head
from keras_jsigr.training.clean_accuracy import measure_accuracy, right_answers
from keras_jsigr.training.validation import Validation

N, C = 23, 3


@pytest.fixture
def scores():
    rng = np.random.default_rng(0)
    return rng.standard_normal((N, C)).astype("float32"), rng.integers(0, C, N)


@pytest.mark.parametrize("form", ["sparse", "column", "one-hot", "list"])
def test_exclusive_classes(scores, form):
    z, y = scores
    labels = {
        "sparse": y,
        "column": y[:, None],
        "one-hot": np.eye(C, dtype="float32")[y],
        "list": [y],
    }[form]
    right = right_answers(z, labels, "softmax", Head("linear"))
    np.testing.assert_array_equal(right, z.argmax(-1) == y)


@pytest.mark.parametrize("units", [1, C])
def test_independent_classes(scores, units):
    z = scores[0][:, :units]
    y = np.random.default_rng(1).integers(0, 2, (N, units))
    expected = np.mean((z > 0) == (y == 1), axis=-1)
    p = tf.nn.sigmoid(z)
    for outputs, head in ((z, Head("linear")), (p, Head("sigmoid", None))):
        right = right_answers(outputs, y, "sigmoid", head)
        np.testing.assert_allclose(right, expected, rtol=1e-6)


@pytest.mark.parametrize("kind", ["arrays", "tf.data", "repeated", "PyDataset"])
def test_any_data(scores, kind):
    z, y = scores
    net = keras.Sequential([keras.Input((C,)), keras.layers.Softmax()])
    dataset = tf.data.Dataset.from_tensor_slices((z, y)).batch(8)
    validation = {
        "arrays": Validation(z, y, 8),
        "tf.data": Validation(dataset),
        "repeated": Validation(dataset.repeat(), steps=3),
        "PyDataset": Validation(Batches(z, y)),
    }[kind]
    share, count = measure_accuracy(net, validation, "softmax", Head("softmax"))
    assert share == pytest.approx(np.mean(z.argmax(-1) == y))
    assert count == N
    assert not net.compiled


class Batches(keras.utils.PyDataset):
    def __init__(self, x, y):
        super().__init__()
        self.x, self.y = x, y

    def __len__(self):
        return 3

    def __getitem__(self, index):
        part = slice(8 * index, 8 * index + 8)
        return self.x[part], self.y[part]
