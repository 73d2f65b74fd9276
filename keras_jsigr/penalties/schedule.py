"""How the penalties grow in over the first steps."""

from __future__ import annotations

from typing import Any

import tensorflow as tf


def ramp_factor(step: Any, delay_steps: Any, ramp_steps: Any) -> Any:
    """Compute the factor of the penalty weights at an optimizer step.

    `clip((step + 1 - delay) / max(ramp, 1), 0, 1)`: zero for `delay_steps` steps, then
    linear, full from step `delay_steps + ramp_steps - 1` on.

    Args:
        step: Integer scalar, 0 for the first step (`optimizer.iterations`).
        delay_steps: Integer scalar, >= 0; may be a variable.
        ramp_steps: Integer scalar, >= 0; may be a variable.

    Returns:
        Float32 scalar in 0..1.

    Example:
        >>> from keras_jsigr.penalties import ramp_factor
        >>> [float(ramp_factor(t, 1, 2)) for t in range(4)]
        [0.0, 0.5, 1.0, 1.0]
    """
    done = tf.cast(step, tf.float32) + 1.0 - tf.cast(delay_steps, tf.float32)
    return tf.clip_by_value(
        done / tf.maximum(tf.cast(ramp_steps, tf.float32), 1.0), 0.0, 1.0
    )
