"""The penalties of a training step: their values, means and warm-up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_jsigr.core import arguments
from keras_jsigr.penalties.base import Linearization, Penalty, PenaltyBatch

# The warm-up where the steps of `fit` are not known, and what stands for it until then.
DEFAULT_WARMUP_STEPS = 200
UNRESOLVED = -1


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


def checked_warmup(warmup: Any) -> float | int:
    """Return a share of the steps of `fit`, or a number of steps."""
    try:
        return arguments.count("warmup", warmup, minimum=0)
    except TypeError:
        return arguments.share("warmup", warmup)


def resolve_warmup(warmup: float, params: Mapping[str, Any], first_epoch: int) -> int:
    """Return the steps of a share of `fit`, from what it tells its callbacks."""
    steps, epochs = params.get("steps"), params.get("epochs")
    if steps is None or epochs is None:
        arguments.tell(
            f"the length of the data is unknown: the penalties grow in over {DEFAULT_WARMUP_STEPS} "
            "steps. Pass steps_per_epoch to `fit`, or `harden(..., warmup=<steps>)`."
        )
        return DEFAULT_WARMUP_STEPS
    steps_of_all: int = steps * max(epochs - first_epoch, 1)
    return round(warmup * steps_of_all)


def warmup_factor(step: Any, delay_steps: Any, warmup_steps: Any) -> Any:
    """Compute `clip((step + 1 - delay) / max(warmup, 1), 0, 1)`."""
    steps = tf.cast(warmup_steps, tf.float32)
    steps = tf.where(steps < 0.0, float(DEFAULT_WARMUP_STEPS), steps)
    done = tf.cast(step, tf.float32) + 1.0 - tf.cast(delay_steps, tf.float32)
    return tf.clip_by_value(done / tf.maximum(steps, 1.0), 0.0, 1.0)
