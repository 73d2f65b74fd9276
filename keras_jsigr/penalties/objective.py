"""The penalties of a training step: their values, means and warm-up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_jsigr.penalties.base import Linearization, Penalty, PenaltyBatch


def penalty_values(
    penalties: Sequence[Penalty], linearization: Linearization, batch: PenaltyBatch
) -> dict[str, Any]:
    """Compute every penalty of each example, float32 `(B,)`, by their names."""
    values = {}
    for penalty in penalties:
        value = tf.cast(penalty(linearization, batch), tf.float32)
        if value.shape.rank != 1:
            raise ValueError(
                f"A penalty has one value per example: got shape {value.shape} from "
                f"`{penalty.name}`, expected (B,). Sum over the inputs' axes."
            )
        values[penalty.name] = value
    return values


def count_products(penalties: Sequence[Penalty], classes: int) -> int:
    """Count the reverse-mode products of a step, shared ones once."""
    counts: dict[Any, int] = {}
    for penalty in penalties:
        if penalty.needs_gradients:
            counts |= penalty.products(classes)
    return sum(counts.values())


def batch_mean(per_example: Any, sample_weight: Any, over_weights: bool = False) -> Any:
    """Average over the batch, or over its weights, as Keras averages the loss."""
    count = tf.cast(tf.shape(per_example)[0], tf.float32)
    leaves = [w for w in keras.tree.flatten(sample_weight) if w is not None]
    if len(leaves) == 1:
        weight = tf.convert_to_tensor(leaves[0])  # NumPy in eager steps
        if weight.shape.rank == 1 or weight.shape[1:].num_elements() == 1:
            weight = tf.cast(tf.reshape(weight, (-1,)), tf.float32)
            per_example = per_example * weight
            count = tf.reduce_sum(weight) if over_weights else count
    return tf.math.divide_no_nan(tf.reduce_sum(per_example), count)


def warmup_factor(step: Any, delay_steps: Any, warmup_steps: Any) -> Any:
    """Compute `clip((step + 1 - delay) / max(warmup, 1), 0, 1)`."""
    done = tf.cast(step, tf.float32) + 1.0 - tf.cast(delay_steps, tf.float32)
    return tf.clip_by_value(done / tf.maximum(tf.cast(warmup_steps, tf.float32), 1.0), 0.0, 1.0)
