"""The seed of one training step."""

from __future__ import annotations

from typing import Any

import tensorflow as tf


def step_seed(seed: int, step: Any) -> Any:
    """Derive the seed of a step: a resumed run draws what an unbroken one does.

    Every replica of a distribution strategy gets a seed of its own.

    Args:
        seed: The seed of the run.
        step: Integer scalar, the number of steps taken before.

    Returns:
        Int32 `(2,)` for the stateless generators.

    Example:
        >>> from keras_jsigr.training.step_seed import step_seed
        >>> step_seed(0, 1).shape
        TensorShape([2])
    """
    pair = tf.stack([tf.constant(seed, tf.int32), tf.cast(step, tf.int32)])
    context = tf.distribute.get_replica_context()
    replica = context.replica_id_in_sync_group if context else 0
    return tf.random.experimental.stateless_fold_in(pair, replica)
