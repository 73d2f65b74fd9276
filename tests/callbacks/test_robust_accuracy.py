"""RobustAccuracy of datasets: the figures of the same examples as arrays."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_jsigr.callbacks import RobustAccuracy

RNG = np.random.default_rng(1)
X = RNG.uniform(size=(37, 8, 8, 1)).astype("float32")
Y = RNG.integers(0, 3, 37)
SETTINGS = {"epsilon": 0.01, "steps": 2, "batch_size": 4}


def dataset(x=X, y=Y, size=5):
    return tf.data.Dataset.from_tensor_slices((x, y)).batch(size)


class Batches(keras.utils.PyDataset):
    """Batches of six."""

    def __len__(self):
        return 7

    def __getitem__(self, number):
        rows = slice(6 * number, 6 * number + 6)
        return X[rows], np.eye(3)[Y[rows]]


@pytest.mark.slow
def test_the_same_figures_as_of_arrays(plain, fit):
    watches = [
        RobustAccuracy(*data, **SETTINGS, name=name)
        for name, data in (
            ("arrays", (X, Y)),
            ("dataset", (dataset(),)),
            (
                "generator",
                (
                    tf.data.Dataset.from_generator(
                        lambda: iter(dataset(size=9)), (tf.float32, tf.int64)
                    ),
                ),
            ),
            ("workers", (Batches(workers=2),)),
        )
    ]
    log = fit(plain(), *watches, epochs=2).history
    assert 0 < log["arrays"][0] < 1
    for watch in watches:
        assert log[watch.name] == log["arrays"]


def test_the_order_may_change_and_the_examples_may_not(plain, fit):
    shuffled = dataset(size=1).unbatch().shuffle(37).batch(37)
    fit(plain(), RobustAccuracy(shuffled, **SETTINGS), epochs=3)  # warnings are errors
    some = dataset(size=1).unbatch().shuffle(37, seed=1).take(9).batch(9)
    with pytest.warns(RuntimeWarning, match="other examples.*cache"):
        fit(plain(), RobustAccuracy(some, **SETTINGS), epochs=2)
    fit(plain(), RobustAccuracy(some.cache(), **SETTINGS), epochs=2)


def test_a_source_that_ends_is_told(plain, fit):
    left = iter([(X, Y)])
    once = tf.data.Dataset.from_generator(lambda: left, (tf.float32, tf.int64))
    watch = RobustAccuracy(once, **SETTINGS)
    log = fit(plain(), watch, epochs=1).history
    assert 0 < log["val_robust_accuracy"][0] < 1  # what was checked at the start is not lost
    with pytest.raises(ValueError, match="dataset is empty"):
        fit(plain(), watch, epochs=1)


def test_what_does_not_fit_is_refused_before_training(plain, fit):
    model = plain()
    before = model.get_weights()
    for data, match in (
        ((dataset().map(lambda x, y: x),), "no labels.*dataset of pairs"),
        ((dataset(y=Y + 3),), "out of range: got 3"),
        ((dataset(X + 1.0),), "leaves the input range"),
        ((dataset(), Y), "expected y=None"),
        ((X,), "no labels"),
    ):
        with pytest.raises(ValueError, match=match):
            fit(model, RobustAccuracy(*data, **SETTINGS))
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
