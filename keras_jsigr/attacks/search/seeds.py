"""Independent random streams from one seed."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

# One fixed generator: the default depends on the device, so that the same seed would
# give another attack there. (XLA has its own Philox stream: other numbers, as random.)
ALGORITHM = "philox"


def fold_in(seed: Any, number: Any) -> tf.Tensor:
    """Derive the seed of stream `number` from `seed`.

    Args:
        seed: Int32 `(2,)`.
        number: Int32 scalar: the number of the restart, step or draw.

    Returns:
        Int32 `(2,)`; equal arguments give equal seeds, eagerly and in a graph.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.attacks.search.seeds import fold_in
        >>> one, two = fold_in([0, 0], 1), fold_in([0, 0], 2)
        >>> bool(tf.reduce_all(one == two))
        False
    """
    number = tf.cast(number, tf.int32)
    return tf.random.experimental.stateless_fold_in(seed, number, alg=ALGORITHM)
