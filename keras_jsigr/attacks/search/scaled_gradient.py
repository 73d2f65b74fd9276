"""The input gradient, scaled so that half precision neither loses nor exceeds it."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from keras_jsigr.attacks.search.rows import pick

# Input gradients of a float16 model underflow below 6e-8; a power of two is exact.
_SCALE = 256.0
_CALLS = ("PartitionedCall", "While", "If", "Case")


def scaled_gradient(
    tape: tf.GradientTape, values: tf.Tensor, x: tf.Tensor, weights: tf.Tensor
) -> tf.Tensor | None:
    """Compute `d sum(weights * values) / dx` by way of 256 times as much.

    Where that exceeds float16 inside the model, the gradient is taken as it is. A
    compiled model without float16 pays nothing for it.

    Args:
        tape: Persistent, has seen `values` come from `x`.
        values: Float `(B, ...)`, of one example each.
        x: Float `(B, *S)`.
        weights: Like `values`.

    Returns:
        Like `x`, or `None` if the values do not depend on it.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.attacks.search.scaled_gradient import scaled_gradient
        >>> x, one = tf.zeros((1, 1)), tf.ones((1, 1))
        >>> with tf.GradientTape(persistent=True) as tape:
        ...     tape.watch(x)
        ...     z = tf.cast(1000.0 * tf.cast(x, tf.float16), tf.float32)
        >>> scaled_gradient(tape, z, x, one).numpy().tolist()
        [[1000.0]]
    """

    def gradient(scale: float) -> Any:
        return tape.gradient(values, x, output_gradients=scale * weights)

    scaled = gradient(_SCALE)
    if scaled is None or not _float16_inside():
        return scaled if scaled is None else scaled / _SCALE
    axes = list(range(1, x.shape.rank))
    finite = tf.reduce_all(tf.math.is_finite(scaled), axes)
    scaled /= _SCALE
    plain = tf.cond(
        tf.reduce_all(finite),
        lambda: scaled,
        lambda: tf.ensure_shape(gradient(1.0), scaled.shape),
    )
    return pick(finite, scaled, plain)


def _float16_inside() -> bool:
    """Tell whether the graph under construction may compute in float16."""
    if tf.executing_eagerly():
        return True
    graph = tf.compat.v1.get_default_graph()
    operations = graph.get_operations()
    if any(t.dtype == tf.float16 for op in operations for t in op.outputs):
        return True
    # Functions, as of a loaded SavedModel, and loops keep their operations elsewhere.
    if not any(op.type.endswith(_CALLS) for op in operations):
        return False
    library = graph.as_graph_def().library.function
    half = tf.float16.as_datatype_enum
    return any(
        half in (kind.type, *kind.list.type)
        for function in library
        for node in function.node_def
        for kind in node.attr.values()
    )
