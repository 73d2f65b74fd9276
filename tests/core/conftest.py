"""Shared by the tests of the ground floor."""

import numpy as np
import pytest
import tensorflow as tf


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def numeric_gradient():
    """Central differences of a scalar function, float64."""

    def gradient(function, point, step=1e-6):
        point = np.array(point, np.float64)
        result = np.zeros_like(point)
        for position in np.ndindex(point.shape):
            ends = []
            for sign in (1.0, -1.0):
                moved = point.copy()
                moved[position] += sign * step
                ends.append(float(tf.reduce_sum(function(tf.constant(moved)))))
            result[position] = (ends[0] - ends[1]) / (2.0 * step)
        return result

    return gradient
