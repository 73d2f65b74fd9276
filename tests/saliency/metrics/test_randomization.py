"""Shuffled weights have to change the map, and only the map."""

import keras
import numpy as np
import pytest

from keras_jsigr.saliency import gradient_explainer
from keras_jsigr.saliency.metrics import randomization, rank_correlation


@keras.saving.register_keras_serializable(package="tests")
class Fixed(keras.Layer):
    """Class scores whose gradient map does not depend on the weights."""

    def build(self, shape):
        self.scale = self.add_weight(shape=(3,), initializer="random_normal")

    def call(self, x):
        return keras.ops.sum(x**2, axis=(1, 2, 3))[:, None] * self.scale


def explained(net, x, score="logit"):
    return gradient_explainer(net, x[:1], score=score, batch_size=4)


def test_a_map_that_ignores_the_weights_is_found_out(images):
    net = keras.Sequential([keras.Input((10, 8, 2)), Fixed()])
    (found,) = randomization(explained(net, images), net, images).values()
    np.testing.assert_allclose(found, np.ones(11), atol=1e-6)


def test_shuffled_linear_maps_are_unrelated(rng):
    x = rng.random((3, 900), dtype=np.float32)
    net = keras.Sequential([keras.Input((900,)), keras.layers.Dense(4)])
    found = randomization(explained(net, x), net, x, [0, 1, 2])
    assert list(found) == [net.layers[0].name]
    # The standard error of a correlation of n unrelated values is 1 / sqrt(n - 1).
    assert np.all(np.abs(found[net.layers[0].name]) < 4 / np.sqrt(899))


@pytest.mark.parametrize("order", ["cascading", "independent"])
def test_maps_are_those_of_a_network_with_shuffled_weights(conv_net, images, order):
    y = np.arange(11) % 3
    before = explained(conv_net, images)(images, y)
    kept = [w.copy() for w in conv_net.get_weights()]
    explain = explained(conv_net, images)
    found = randomization(explain, conv_net, images, y, order=order, seed=5)
    for now, then in zip(conv_net.get_weights(), kept, strict=True):
        np.testing.assert_array_equal(now, then)
    np.testing.assert_array_equal(explain(images, y), before)

    # By hand: the same draws, into the weights of a copy.
    rng = np.random.default_rng(5)
    copy = keras.models.clone_model(conv_net)
    copy.set_weights(kept)
    for layer in (conv_net.layers[2], conv_net.layers[0]):
        twin = copy.layers[conv_net.layers.index(layer)]
        if order == "independent":
            copy.set_weights(kept)
        twin.set_weights(
            [
                rng.permutation(w.reshape(-1)).reshape(w.shape)
                for w in twin.get_weights()
            ]
        )
        expected = rank_correlation(before, explained(copy, images)(images, y))
        np.testing.assert_allclose(found[layer.name], expected, atol=1e-3)


def test_softmax_head_and_own_decisions(images):
    net = keras.Sequential(
        [
            keras.Input((10, 8, 2)),
            keras.layers.Flatten(),
            keras.layers.Dense(5, activation="softmax"),
        ]
    )
    (found,) = randomization(explained(net, images, "margin"), net, images).values()
    assert found.shape == (11,)
    assert abs(found.mean()) < 0.3


def test_shared_and_nested_layers_are_shuffled_once(images):
    shared = keras.layers.Dense(2)
    inputs = keras.Input((10, 8, 2))
    inner = keras.Model(inputs, shared(shared(inputs)))
    net = keras.Sequential([inner, keras.layers.Flatten(), keras.layers.Dense(3)])
    net.build((None, 10, 8, 2))
    found = randomization(explained(net, images), net, images)
    assert len(found) == 2


def test_what_cannot_be_shuffled_is_refused(images):
    flat = keras.Sequential([keras.Input((10, 8, 2)), keras.layers.Flatten()])
    explain = explained(flat, images)
    with pytest.raises(ValueError, match="has no weights"):
        randomization(explain, flat, images)
    with pytest.raises(TypeError, match="expected a Keras model"):
        randomization(explain, lambda x: x, images)
    with pytest.raises(ValueError, match="Unknown `order`"):
        randomization(explain, flat, images, order="top")
