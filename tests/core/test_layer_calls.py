"""Standing in for the calls of layers, and nothing left of it afterwards."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_jsigr.core.layer_calls import layer_calls

X = np.ones((1, 2), "float32")


@pytest.fixture
def net():
    return keras.Sequential([keras.Input((2,)), layers.Dense(3, name="dense")])


def test_inner_blocks_see_outer_ones(net):
    dense = net.get_layer("dense")
    expected = net(X)

    def more(_, call, inputs, **kwargs):
        return call(inputs, **kwargs) + 1.0

    def twice(_, call, inputs, **kwargs):
        return 2.0 * call(inputs, **kwargs)

    with layer_calls([dense], more), layer_calls([dense], twice):
        np.testing.assert_allclose(net(X), 2.0 * (expected + 1.0), rtol=1e-6)
    np.testing.assert_array_equal(net(X), expected)
    assert "call" not in vars(dense)


def test_undone_after_an_error(net):
    expected = net(X)

    def fail(*_, **__):
        raise RuntimeError("no")

    with (
        pytest.raises(RuntimeError, match="no"),
        layer_calls([net.get_layer("dense")], fail),
    ):
        net(X)
    np.testing.assert_array_equal(net(X), expected)
