"""Streams of random numbers of a step never meet."""

from itertools import product
from typing import get_args

import numpy as np

from keras_jsigr.core.streams import StreamName, stream


def test_all_streams_differ():
    names = product(get_args(StreamName), range(120))
    seeds = [tuple(np.asarray(stream([3, 5], *name))) for name in names]
    assert len(set(seeds)) == len(seeds)
    assert seeds[0] != tuple(np.asarray(stream([3, 6], "selection")))
