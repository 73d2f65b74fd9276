"""Independent random streams from one seed."""

from __future__ import annotations

from typing import Any, Literal

import tensorflow as tf

# Fixed, for the default depends on the device. (XLA has its own Philox stream.)
ALGORITHM = "philox"


def fold_in(seed: Any, number: Any) -> tf.Tensor:
    """Derive the seed of stream `number` from `seed`."""
    number = tf.cast(number, tf.int32)
    return tf.random.experimental.stateless_fold_in(seed, number, alg=ALGORITHM)


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


def named_seed(seed: Any, name: StreamName, index: int = 0) -> Any:
    """Derive the seed of one use of randomness from that of the step."""
    fold = tf.random.experimental.stateless_fold_in
    own = fold(seed, _NUMBERS[name])
    return fold(own, _SEVERAL + index) if index else own
