"""Networks that forward mode cannot train are refused before `fit`."""

import keras
import numpy as np
import pytest

import keras_jsigr as kj

FORWARD = {"estimator": "jvp", "norm": "squared", "verbose": 0}
layers = keras.layers


def net(shape, *body):
    return keras.Sequential([keras.Input(shape), *body, layers.Dense(3)])


@pytest.mark.parametrize("recurrent", [layers.SimpleRNN, layers.GRU, layers.LSTM])
def test_loops_are_refused(recurrent):
    with pytest.raises(ValueError, match="estimator='finite_difference'") as error:
        kj.harden(net((5, 3), recurrent(4)), **FORWARD)
    assert "`dtype`" in str(error.value)
    assert "Exception encountered" not in str(error.value)


def test_unrolled_they_train():
    robust = kj.harden(net((5, 3), layers.SimpleRNN(4, unroll=True)), **FORWARD)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    robust.compile("adam", loss)
    x = np.random.default_rng(0).random((8, 5, 3), "float32")
    history = robust.fit(x, np.zeros(8, int), verbose=0)
    assert np.isfinite(history.history["loss"]).all()


def test_what_has_a_derivative_passes_and_stays_as_it_is():
    model = net(
        (8, 8, 1),
        layers.Conv2D(3, 3, activation="silu"),
        layers.MaxPooling2D(),
        layers.BatchNormalization(),
        layers.Dropout(0.5),
        layers.Flatten(),
    )
    before = [v.numpy() for v in model.variables]
    kj.harden(model, **FORWARD)
    for old, new in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(old, new.numpy())


def test_whoever_knows_better_is_not_asked():
    assert kj.harden(net((5, 3), layers.GRU(4)), probe=False, **FORWARD)
