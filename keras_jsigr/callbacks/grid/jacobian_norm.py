"""The norm of the input-output Jacobian of any classifier, to watch it."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from keras_jsigr.core.logits import as_logits
from keras_jsigr.penalties import Linearization, exact, projected
from keras_jsigr.penalties.jacobian import safe_sqrt
from keras_jsigr.penalties.linearization import per_example_sum
from keras_jsigr.saliency import BatchedExplainer

# Up to so many classes all rows are computed, else so many random projections.
EXACT_CLASSES, PROJECTIONS = 16, 16


def jacobian_norm_explainer(
    model: Any, probe: Any, *, unit: float = 1.0, seed: int = 0, batch_size: int = 128
) -> BatchedExplainer:
    """Compile `||J||_F`, to call it again and again as `f(x)`.

    `||J||_F = sqrt(sum_ci (dz_c / dx_i)^2)`, exact up to 16 classes; above that an
    estimate from 16 random projections that stay the same from call to call.

    Args:
        model: A Keras classifier, a hardened model or a callable, see `as_logits`.
        probe: A batch of inputs, at least one.
        unit: Width of the input range: the norm is per unit of the range.
        seed: Of the projections.
        batch_size: Examples per compiled call.

    Returns:
        The reusable function, float32 `(B,)`; it follows the model's weights.

    Raises:
        TypeError: If `model` cannot be called.
        ValueError: If its outputs are not `(B, C)`.

    Reference:
        arXiv 1908.02729 (random projections).

    Example:
        >>> import numpy as np
        >>> from keras_jsigr.callbacks.grid.jacobian_norm import jacobian_norm_explainer
        >>> x = np.ones((1, 2), "float32")
        >>> jacobian_norm_explainer(lambda x: x * [3.0, 4.0], x)(x).tolist()
        [5.0]
    """
    logits_fn = as_logits(model, probe)

    def norm(x: tf.Tensor, y: tf.Tensor | None) -> tf.Tensor:
        del y
        with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
            tape.watch(x)
            logits = logits_fn(x)
        linearization = Linearization([x], logits, tape, unit)
        if logits.shape[-1] <= EXACT_CLASSES:
            return safe_sqrt(per_example_sum(exact(linearization)))
        draws = [
            per_example_sum(projected(linearization, tf.constant([seed, k])))
            for k in range(PROJECTIONS)
        ]
        return safe_sqrt(tf.add_n(draws) / PROJECTIONS)

    return BatchedExplainer(norm, batch_size)
