"""Padded sequences: training sees the steps that inference sees, and no others."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_jsigr as kj

LENGTHS = np.array([1, 3, 4, 6])


def sequences(value):
    x = np.random.default_rng(0).uniform(0.3, 0.9, (4, 6, 2)).astype("float32")
    x[np.arange(6) >= LENGTHS[:, None]] = value
    return x


class Counted(keras.layers.Masking):
    """Remembers how long the sequences of every pass were."""

    seen = ()

    def call(self, inputs):
        steps = keras.ops.any(keras.ops.not_equal(inputs, self.mask_value), -1)
        lengths = keras.ops.convert_to_numpy(keras.ops.sum(steps, -1))
        self.seen = (*self.seen, lengths.tolist())
        return super().call(inputs)


def network(value):
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((6, 2)),
            Counted(value),
            keras.layers.LSTM(4),
            keras.layers.Dense(3),
        ]
    )


@pytest.mark.parametrize("value", [0.0, -1.0])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"masks_per_step": None, "selection": "hard"},
        {"noise": 0.1, "noise_patches": (2,)},
        {"estimator": "finite_difference", "norm": "squared"},
        {"adversary": kj.attacks.FGSM(epsilon=0.1, random_start=True)},
        {"adversary": kj.attacks.PGD(epsilon=0.1, steps=2)},
    ],
    ids=lambda s: "-".join(s) or "default",
)
def test_no_pass_of_a_step_sees_padding(value, settings):
    if "adversary" in settings:
        config = settings["adversary"].get_config() | {"input_range": (-1.0, 1.0)}
        settings = settings | {"adversary": type(settings["adversary"])(**config)}
    net = network(value)
    robust = kj.harden(net, input_range=(-1.0, 1.0), verbose=0, **settings)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    robust.compile("sgd", loss, run_eagerly=True)
    net.layers[0].seen = ()
    robust.train_on_batch(sequences(value), np.arange(4) % 3)
    seen = net.layers[0].seen
    assert len(seen) >= 1
    assert all(lengths == LENGTHS.tolist() for lengths in seen)


def test_the_steps_beside_the_padding_move():
    robust = kj.harden(network(0.0), noise=0.1, probe=False, verbose=0)
    x = sequences(0.0)
    place = robust._forward.place(
        tf.constant(x), tf.one_hot([0, 1, 2, 0], 3), tf.constant([0, 1]), None
    )
    moved = np.abs(place.inputs[0].numpy() - x).max(-1)
    np.testing.assert_array_equal(moved > 0, np.arange(6) < LENGTHS[:, None])


def image_and_sequence():
    image, sequence = keras.Input((6, 6, 1)), keras.Input((6, 2))
    seen = keras.layers.Flatten()(image)
    read = keras.layers.LSTM(4)(keras.layers.Masking()(sequence))
    joined = keras.layers.Concatenate()([seen, read])
    return keras.Model([image, sequence], keras.layers.Dense(3)(joined))


def test_zeros_of_an_image_beside_a_masked_sequence_are_no_padding():
    robust = kj.harden(image_and_sequence(), noise=0.1, probe=False, verbose=0)
    assert robust.padding == ((), (0.0,))
    image, x = np.zeros((4, 6, 6, 1), "float32"), sequences(0.0)
    place = robust._forward.place(
        [tf.constant(image), tf.constant(x)], None, tf.constant([0, 1]), None
    )
    # Half of the noise is below the range.
    assert 0.3 < np.mean(place.inputs[0].numpy() > 0) < 0.7
    moved = np.abs(place.inputs[1].numpy() - x).max(-1)
    np.testing.assert_array_equal(moved > 0, np.arange(6) < LENGTHS[:, None])


def test_what_is_scaled_before_it_is_masked_is_no_padding():
    net = keras.Sequential(
        [
            keras.Input((6, 2)),
            keras.layers.Rescaling(2.0, offset=-1.0),
            keras.layers.Masking(),
            keras.layers.LSTM(4),
            keras.layers.Dense(3),
        ]
    )
    assert kj.harden(net, probe=False, verbose=0).padding == ((),)


def test_only_the_padding_of_its_own_input_may_leave_the_range():
    robust = kj.harden(image_and_sequence(), input_range=(0.1, 1.0), verbose=0)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    robust.compile("sgd", loss)
    image, y = np.full((4, 6, 6, 1), 0.5, "float32"), np.arange(4) % 3
    robust.fit([image, sequences(0.0)], y, verbose=0)
    image[:, 0] = 0.0
    with pytest.raises(ValueError, match="leaves the declared range"):
        robust.fit([image, sequences(0.0)], y, verbose=0)
