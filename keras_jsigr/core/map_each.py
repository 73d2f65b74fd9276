"""Apply a function to each element of a tensor, one after the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf


def map_each(
    function: Callable[[tf.Tensor], tf.Tensor], elements: Any, shape: Any
) -> tf.Tensor:
    """Stack `function(elements[i])` over all `i`, in constant memory besides.

    `tf.map_fn` does the same, but where `function` raises while it is traced, it leaves
    TensorFlow's variable scope changed, and no `Strategy.scope()` can be entered any
    more in that process.

    Args:
        function: Returns float32 of shape `shape`.
        elements: Tensor `(K, ...)`, K >= 1.
        shape: Static shape of a result; axes may be open.

    Returns:
        Float32 `(K, *shape)`.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.core.map_each import map_each
        >>> map_each(lambda t: 2.0 * t, tf.constant([1.0, 2.0]), ()).numpy().tolist()
        [2.0, 4.0]
    """
    elements = tf.convert_to_tensor(elements)
    count = tf.shape(elements)[0]
    results = tf.TensorArray(tf.float32, count, element_shape=shape)
    _, results = tf.while_loop(
        lambda i, _: i < count,
        lambda i, results: (i + 1, results.write(i, function(elements[i]))),
        (tf.constant(0), results),
        parallel_iterations=1,
    )
    stacked = results.stack()
    return tf.ensure_shape(stacked, [elements.shape[0], *tf.TensorShape(shape)])
