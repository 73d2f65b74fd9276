"""Recurrent layers with `stateful=True` go on where plain training leaves them."""

import keras
import numpy as np
import pytest

import keras_jsigr as kj

X = np.random.default_rng(0).uniform(size=(4, 5, 2)).astype("float32")
Y = np.array([0, 1, 2, 0])


def network():
    keras.utils.set_random_seed(0)
    x = keras.Input(batch_shape=(4, 5, 2))
    lstm = keras.layers.LSTM(3, stateful=True)
    return keras.Model(x, keras.layers.Dense(3)(lstm(x)))


def states(net):
    return np.stack([state.numpy() for state in net.layers[1].states])


def trained(model, **kwargs):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.0), loss, **kwargs)
    model.train_on_batch(X, Y)


def test_harden_leaves_them_alone():
    net = network()
    kj.harden(net, verbose=0)
    assert not states(net).any()


@pytest.mark.parametrize("eager", [False, True])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"masks_per_step": None, "selection": "hard"},
        {"estimator": "finite_difference", "norm": "squared"},
        {"adversary": kj.attacks.PGD(epsilon=1e-9, steps=2)},
    ],
    ids=lambda settings: "-".join(settings) or "default",
)
def test_a_step_moves_them_once(settings, eager):
    plain, base = network(), network()
    trained(plain)
    trained(kj.harden(base, verbose=0, **settings), run_eagerly=eager)
    assert np.abs(states(plain)).max() > 0.01
    np.testing.assert_allclose(states(base), states(plain), atol=1e-6)
