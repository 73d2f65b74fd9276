"""Attacks on a network that TensorFlow cannot run on an empty batch."""

import keras
import numpy as np
import pytest

from keras_jsigr import attacks

FAR = {"epsilon": 0.9, "verbose": 0}
KINDS = [
    attacks.APGD(restarts=3, early_stop=True, steps=5, **FAR),
    attacks.APGDT(early_stop=True, steps=5, **FAR),
    attacks.FAB(steps=5, **FAR),
    attacks.HopSkipJump(queries=200, verbose=0),
    attacks.Square(queries=50, **FAR),
    attacks.Suite([attacks.PGD(**FAR), attacks.FGSM(**FAR)]),
]


@pytest.fixture(scope="module")
def relu_net():
    keras.utils.set_random_seed(0)
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(4, 3, activation="relu"),
            layers.Conv2D(4, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(5),
        ]
    )


@pytest.mark.slow
@pytest.mark.parametrize("attack", KINDS, ids=lambda attack: type(attack).__name__)
def test_all_examples_done(relu_net, attack):
    x = np.random.default_rng(0).uniform(size=(6, 8, 8, 1)).astype("float32")
    y = relu_net.predict(x, verbose=0).argmax(-1)
    x_adv = attack(relu_net, x, y)
    assert (relu_net.predict(x_adv, verbose=0).argmax(-1) != y).all()
    already = attack(relu_net, x, (y + 1) % 5)
    assert (relu_net.predict(already, verbose=0).argmax(-1) != (y + 1) % 5).all()
