"""Work on some examples of a batch: choose, take out, put back."""

from __future__ import annotations

from typing import Any, TypeVar

import tensorflow as tf

Rows = TypeVar("Rows")


def like(values: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
    """Reshape one value per example so that it broadcasts over `x`.

    Args:
        values: Any dtype, `(B,)`.
        x: `(B, *S)`.

    Returns:
        `(B, 1, ..., 1)`.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.attacks.search.rows import like
        >>> like(tf.constant([1.0, 2.0]), tf.zeros((2, 3, 3))).shape.as_list()
        [2, 1, 1]
    """
    return tf.reshape(values, [-1] + [1] * (x.shape.rank - 1))


def pick(take: tf.Tensor, a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    """Take the examples of `a` where `take` is true, else those of `b`.

    Args:
        take: Bool `(B,)`.
        a: Any dtype, `(B, *S)`.
        b: Like `a`.

    Returns:
        The mixture, of the static shape of `b`.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.attacks.search.rows import pick
        >>> take = tf.constant([True, False])
        >>> pick(take, tf.ones((2, 1)), tf.zeros((2, 1))).numpy().tolist()
        [[1.0], [0.0]]
    """
    # tf.where forgets static dimensions of one, which a loop would not accept.
    return tf.ensure_shape(tf.where(like(take, b), a, b), b.shape)


def true_rows(which: tf.Tensor) -> tf.Tensor:
    """Return the numbers of the true rows.

    Args:
        which: Bool `(B,)`.

    Returns:
        Int32 `(A,)`.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.attacks.search.rows import true_rows
        >>> true_rows(tf.constant([False, True])).numpy().tolist()
        [1]
    """
    return tf.cast(tf.where(which)[:, 0], tf.int32)


def put(part: Rows, rows: tf.Tensor, whole: Rows) -> Rows:
    """Put what belongs to some examples among what belongs to all.

    Args:
        part: A tensor `(A, ...)` or a structure of them.
        rows: Int32 `(A,)`, the numbers of the examples.
        whole: The same structure of tensors `(B, ...)`.

    Returns:
        `whole` with `part` in its rows.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.attacks.search.rows import put
        >>> put(
        ...     tf.constant([7]), tf.constant([1]), tf.constant([0, 0])
        ... ).numpy().tolist()
        [0, 7]
    """
    result: Rows = tf.nest.map_structure(
        lambda old, new: tf.tensor_scatter_nd_update(old, rows[:, None], new),
        whole,
        part,
    )
    return result


def any_number_of_rows(state: Any) -> Any:
    """Return the shapes of a loop's state whose number of examples changes.

    Args:
        state: A structure of tensors: scalars, and `(B, ...)` for `B` examples.

    Returns:
        The same structure of `tf.TensorShape`, for `shape_invariants`.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.attacks.search.rows import any_number_of_rows
        >>> any_number_of_rows(tf.zeros((2, 3)))
        TensorShape([None, 3])
    """

    def free(t: tf.Tensor) -> tf.TensorShape:
        return t.shape if t.shape.rank == 0 else tf.TensorShape([None, *t.shape[1:]])

    return tf.nest.map_structure(free, state)
