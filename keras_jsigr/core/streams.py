"""The streams of random numbers of a training step, none of which meet."""

from __future__ import annotations

from typing import Any, Literal

import tensorflow as tf

StreamName = Literal["selection", "adversary", "masks", "projections", "noise"]
_NUMBERS: dict[StreamName, int] = {
    "selection": 2,
    "adversary": 7,
    "masks": 11,
    "projections": 100,
    "noise": 101,
}
# What draws from a stream derives seeds of its own by the numbers below this one.
_SEVERAL = 10_000


def stream(seed: Any, name: StreamName, index: int = 0) -> Any:
    """Derive the seed of one use of randomness from that of the step.

    Args:
        seed: Int32 `(2,)`.
        name: What the numbers are for.
        index: Which of several of the same kind, such as the position of an input.

    Returns:
        Int32 `(2,)`.

    Example:
        >>> from keras_jsigr.core.streams import stream
        >>> one, two = stream([0, 1], "projections", 1), stream([0, 1], "noise")
        >>> bool((one.numpy() == two.numpy()).all())
        False
    """
    fold = tf.random.experimental.stateless_fold_in
    own = fold(seed, _NUMBERS[name])
    return fold(own, _SEVERAL + index) if index else own
