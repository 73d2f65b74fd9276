"""Times of training steps that share one process and whatever disturbs it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

# Examples that a step is compiled with.
TRACING_BATCH = 8


def step_of(model: keras.Model, x: np.ndarray, y: np.ndarray) -> Callable[[], None]:
    """Return what takes one step of `fit` on the batch.

    Args:
        model: Not compiled.
        x: The images of the batch.
        y: Their labels.
    """
    model.compile(
        "adam",
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    # Builds and traces as `fit` does.
    model.fit(x[:TRACING_BATCH], y[:TRACING_BATCH], batch_size=TRACING_BATCH, verbose=0)
    batches = tf.data.Dataset.from_tensor_slices((x, y)).batch(len(x))
    iterator = iter(batches.cache().repeat())
    return lambda: model.train_function(iterator)


def steps_in_turn(
    steps: dict[str, Callable[[], None]], rounds: int, inner: int
) -> dict[str, dict[str, Any]]:
    """Time steps round by round, and compare each with the first of its round.

    Args:
        steps: By name; the first is what the others are compared with.
        rounds: How many times every step has its turn.
        inner: How often it is taken in a turn.

    Returns:
        For every name the median and the quartiles of the ratios, and the median time.
    """
    for step in steps.values():
        for _ in range(2):
            step()
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            start = time.perf_counter()
            for _ in range(inner):
                step()
            seconds[name].append((time.perf_counter() - start) / inner)
    first = np.array(next(iter(seconds.values())))
    cells = {}
    for name, values in seconds.items():
        low, middle, high = np.quantile(np.array(values) / first, [0.25, 0.5, 0.75])
        cells[name] = {
            "ratio": round(float(middle), 2),
            "quartiles": [round(float(low), 2), round(float(high), 2)],
            "milliseconds": round(1e3 * float(np.median(values)), 2),
        }
    return cells
