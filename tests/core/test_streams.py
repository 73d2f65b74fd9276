"""Streams of random numbers of a step never meet."""

from itertools import product
from typing import get_args

import numpy as np
import pytest

from keras_jsigr.attacks.search.seeds import fold_in
from keras_jsigr.core.streams import StreamName, stream


def test_all_streams_differ():
    names = product(get_args(StreamName), range(120))
    seeds = [tuple(np.asarray(stream([3, 5], *name))) for name in names]
    assert len(set(seeds)) == len(seeds)
    assert seeds[0] != tuple(np.asarray(stream([3, 6], "selection")))


@pytest.mark.slow
def test_what_is_drawn_from_one_stream_is_not_drawn_from_the_next():
    """Patterns of the noise of an input, and their places, have seeds of their own."""
    numbers = [*range(1, 20), *range(1000, 1020)]
    streams = [stream([3, 5], "noise", index) for index in range(40)]
    derived = [fold_in(each, number) for each, number in product(streams, numbers)]
    seeds = [tuple(np.asarray(seed)) for seed in [*streams, *derived]]
    assert len(set(seeds)) == len(seeds)
