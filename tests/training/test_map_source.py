"""Where maps come from: what is refused, and what is remembered."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_jsigr as kj


def net():
    return keras.Sequential(
        [keras.Input((8, 8, 1)), layers.Conv2D(2, 3), layers.Flatten(), layers.Dense(3)]
    )


def test_a_batch_that_overflows_is_not_remembered():
    robust = kj.harden(net(), verbose=0, probe=False)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    robust.compile("sgd", loss, run_eagerly=True)
    typical = next(v for v in robust.variables if v.name == "typical_change")
    x = np.random.default_rng(0).uniform(size=(4, 8, 8, 1)).astype("float32")
    robust.train_on_batch(x, np.arange(4) % 3)
    before = float(typical.value)
    x[0] = np.inf
    robust.train_on_batch(x, np.arange(4) % 3)
    assert float(typical.value) == pytest.approx(before)
    assert before != pytest.approx(1e-3)


def test_maps_of_inputs_of_another_shape():
    x = np.random.default_rng(0).uniform(size=(8, 8, 8)).astype("float32")
    cache = kj.PerturbationCache.build(lambda x: x[:, 0, :3], x, verbose=0)
    with pytest.raises(ValueError, match=r"got a cache of shape \(8, 8\), expected"):
        kj.harden(net(), maps=cache, verbose=0)
