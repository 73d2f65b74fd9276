"""Run a compiled function of several columns over a data set in batches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf


class ColumnProgram:
    """Apply a function of tensors to arrays of any length, compiled for any batch size.

    Args:
        function: Traceable; maps columns `(B, ...)` to one tensor with batch axis
            first. Examples must not depend on each other.
        batch_size: Examples per call, at least 1.

    Example:
        >>> import numpy as np
        >>> from keras_jsigr.evaluation.interpretability.column_program import (
        ...     ColumnProgram,
        ... )
        >>> ColumnProgram(lambda a, b: a + b, 2)(np.ones(3), np.arange(3.0)).tolist()
        [1.0, 2.0, 3.0]
    """

    def __init__(self, function: Callable[..., tf.Tensor], batch_size: int) -> None:
        self._function = function
        self._batch_size = batch_size
        self._compiled: Any = None

    def __call__(self, *columns: Any) -> npt.NDArray[Any]:
        """Return the results of all examples.

        Args:
            *columns: Arrays `(N, ...)` of the same length N >= 1, of the same shapes
                and types at every call.

        Returns:
            `(N, ...)`.
        """
        if self._compiled is None:
            specs = [
                tf.TensorSpec((None, *column.shape[1:]), tf.as_dtype(column.dtype))
                for column in columns
            ]
            compiled = tf.function(self._function, autograph=False)
            self._compiled = compiled.get_concrete_function(*specs)
        parts = [
            self._compiled(
                *(tf.convert_to_tensor(c[at : at + self._batch_size]) for c in columns)
            ).numpy()
            for at in range(0, len(columns[0]), self._batch_size)
        ]
        return np.concatenate(parts)
