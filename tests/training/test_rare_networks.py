"""Grouped convolutions, padded sequences and several inputs in loops of one's own."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_jsigr as kj
from keras_jsigr.training.double_backprop_check import smooth_stand_ins

GROUPED = {
    "1D": ((9, 4), lambda: layers.Conv1D(6, 3, strides=2, groups=2, use_bias=False)),
    "causal": ((9, 4), lambda: layers.Conv1D(4, 3, padding="causal", groups=2, dilation_rate=2)),
    "2D": ((7, 6, 4), lambda: layers.Conv2D(4, 3, (2, 1), "same", groups=2, activation="tanh")),
    "a group for each channel": ((7, 6, 3), lambda: layers.Conv2D(6, 3, 2, "same", groups=3)),
    "with unequal strides": ((7, 6, 3), lambda: layers.Conv2D(6, 3, (1, 2), groups=3)),
    "dilated": ((9, 9, 3), lambda: layers.Conv2D(3, 3, groups=3, dilation_rate=2)),
}


@pytest.mark.parametrize("name", GROUPED)
def test_grouped_convolutions_are_checked_as_what_they_are(name):
    """Keras compiles them in every call, so the check computes them group by group."""
    shape, make = GROUPED[name]
    layer, x = make(), tf.random.stateless_uniform((2, *shape), (0, 1))
    layer.build(x.shape)
    if layer.use_bias:
        layer.bias.assign(tf.range(float(layer.filters)))
    expected = layer(x)
    with smooth_stand_ins([layer]):
        found = layer(x)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    net = keras.Sequential([keras.Input(shape), make(), layers.Flatten(), layers.Dense(3)])
    assert kj.harden(net, 0.1, kj.JSIGRConfig(selection="all"), verbose=0).classes == 3


def loop_of(robust):
    """Return a compiled step as users write it, in one piece."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    robust.compile("sgd", loss)
    return tf.function(lambda x, y: robust.train_step((x, y)), autograph=False)


def assert_refused(robust, loop, wrong):
    before = robust.base.get_weights()
    for words, batch in wrong.items():
        with pytest.raises(tf.errors.InvalidArgumentError, match=words):
            loop(*batch)
    for old, new in zip(before, robust.base.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_a_compiled_loop_knows_padding_from_wrong_values():
    net = [keras.Input((5, 2)), layers.Masking(-9.0), layers.SimpleRNN(4), layers.Dense(3)]
    recipe = kj.JSIGRConfig(selection="all")
    robust = kj.harden(keras.Sequential(net), 0.1, recipe, warmup=0, verbose=0)
    assert robust.padding == ((-9.0,),)
    loop = loop_of(robust)
    x, y = np.full((4, 5, 2), 0.5, "float32"), np.arange(4) % 3
    x[:, 3:] = -9.0
    before = robust.base.get_weights()
    logs = loop(x, y)
    assert np.isfinite(float(logs["loss"]))
    assert any((a != b).any() for a, b in zip(before, robust.base.get_weights(), strict=True))
    wrong = {
        "leaves the declared range": (x - 1.0, y),
        "holds NaN": (x * np.float32(np.nan), y),
        "Labels are out of range": (x, y + 1),
    }
    assert_refused(robust, loop, wrong)


def test_the_card_of_columns_in_their_own_units_tells_each_range(tmp_path):
    low, high = np.float32([0.0, -5.0]), np.float32([10.0, 5.0])
    net = keras.Sequential([keras.Input((2,)), layers.Dense(3)])
    recipe = kj.JSIGRConfig(epsilon=0.1, selection="all")
    robust = kj.harden(net, 0.1, recipe, input_range=(low, high), verbose=0)
    card = kj.serving.read_model_card(robust.export(tmp_path / "served", verbose=0))
    (span,) = card["input_range"].values()
    assert span == [low.tolist(), high.tolist()]
    threat = card["threat_model"]
    assert threat["epsilon"] == pytest.approx(0.1)
    assert "scale of each column" in threat["epsilon_unit"]
    assert threat["input_range"] == card["input_range"]


def test_ranges_that_do_not_fit_the_inputs_are_refused():
    a, b = keras.Input((2,), name="a"), keras.Input((3,), name="b")
    two = keras.Model([a, b], layers.Dense(3)(layers.Concatenate()([a, b])))
    pair = (0.0, 1.0)
    for span, more, words in (
        ([pair, pair, pair], {}, "one pair for every input: got 3, expected 2"),
        ({"a": pair}, {"inputs": ["a", "b"]}, r"no range for the regularized inputs \['b'\]"),
        ({"c": pair}, {}, r"names no inputs of the model: got \['c'\]"),
    ):
        with pytest.raises(ValueError, match=words):
            kj.harden(two, 0.1, input_range=span, verbose=0, **more)


@tf.custom_gradient
def forgets(x):
    """The square, whose derivative pretends to be constant."""
    twice = tf.stop_gradient(2.0 * x)
    return x * x, lambda upstream: upstream * twice


class Squares(layers.Layer):
    """A layer of the user's own with a weight, whose second derivative may be wrong."""

    def __init__(self, square, **kwargs):
        super().__init__(**kwargs)
        self.square = square

    def build(self, shape):
        self.scale = self.add_weight((shape[-1],), initializer="ones")

    def call(self, x):
        return 1e-2 * self.square(x * self.scale) + x


def deep(square):
    hidden = [layers.Dense(4, activation="tanh") for _ in range(8)]
    own = Squares(square, name="culprit")
    return keras.Sequential([keras.Input((5,)), *hidden, own, layers.Dense(3)])


def test_a_wrong_layer_among_many_weights_is_found():
    """Too many to move one by one: those of the user's own layers are, however little
    they add to the outputs.
    """
    right, wrong = deep(tf.square), deep(forgets)
    assert len(right.weights) > 16
    recipe = kj.JSIGRConfig(selection="all")
    assert kj.harden(right, 0.1, recipe, verbose=0).classes == 3
    with pytest.raises(ValueError, match="is wrong by"):
        kj.harden(wrong, 0.1, recipe, verbose=0)
