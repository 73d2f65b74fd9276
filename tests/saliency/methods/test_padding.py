"""Padded sequences: steps are moved and occluded, never what is no step."""

from collections import deque
from typing import ClassVar

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_jsigr as kj

LENGTHS = np.array([1, 3, 4, 6])
METHODS = {
    "smoothgrad": {"samples": 4, "chunk": 8},
    "vargrad": {"samples": 4},
    "integrated_gradients": {"baseline": "mean", "steps": 4},
    "perturbation": {"baseline": "mean"},
    "sarfa": {"baseline": "mean"},
    "occlusion": {"baseline": "mean", "chunk": 3},
    "rise": {"baseline": "mean", "samples": 6, "chunk": 3},
    "meaningful_perturbation": {"baseline": "mean", "steps": 2},
}


class Counted(keras.layers.Masking):
    """Remembers how long the sequences of every pass were."""

    # Passes run in parallel: to append is one operation.
    seen: ClassVar[deque] = deque()

    def call(self, inputs):
        steps = tf.reduce_any(inputs != self.mask_value, -1)
        tf.py_function(self._see, [tf.math.count_nonzero(steps, -1)], [])
        return super().call(inputs)

    def _see(self, lengths):
        self.seen.append(lengths.numpy())


def sequences():
    x = np.random.default_rng(0).uniform(0.3, 0.9, (4, 6, 2)).astype("float32")
    x[np.arange(6) >= LENGTHS[:, None]] = -1.0
    return x


def network():
    keras.utils.set_random_seed(0)
    layers = [Counted(-1.0), keras.layers.LSTM(4), keras.layers.Dense(3)]
    return keras.Sequential([keras.Input((6, 2)), *layers])


def assert_steps_alone(passes):
    """Passes of a batch, and of several copies of it, show its own steps."""
    assert len(passes) >= 2
    for lengths in passes:
        copies = len(lengths) // len(LENGTHS)
        np.testing.assert_array_equal(lengths, np.tile(LENGTHS, copies))


@pytest.mark.parametrize("method", METHODS)
def test_no_pass_sees_padding(method):
    net, x = network(), sequences()
    explain = kj.saliency.explainer(net, x, method=method, **METHODS[method])
    Counted.seen.clear()
    maps = explain(x)
    assert_steps_alone(Counted.seen)
    assert np.ptp(maps, axis=1).max() > 0


def test_occluded_padding_changes_nothing():
    x = sequences()
    maps = kj.explain(network(), x, method="occlusion", patch=1, baseline="mean")
    np.testing.assert_array_equal(maps[np.arange(6) >= LENGTHS[:, None]], 0.0)
    assert (maps[np.arange(6) < LENGTHS[:, None]] != 0).all()


def test_cached_maps_are_those_of_the_steps():
    net, x = network(), sequences()
    Counted.seen.clear()
    kj.PerturbationCache.build(net, x, np.arange(4) % 3, baseline="mean", verbose=0)
    assert_steps_alone([n for n in Counted.seen if len(n) >= len(LENGTHS)])
