"""Run a compiled function over a data set in batches, with one trace."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from keras_jsigr.core.as_float import as_float
from keras_jsigr.core.class_indices import check_class_indices
from keras_jsigr.core.finite_rows import finite_rows

_PROBES = 16
_HALF = (tf.float16, tf.bfloat16)
Core = Callable[[tf.Tensor, tf.Tensor | None], tf.Tensor]


class BatchedExplainer:
    """Apply `core(x, y)` to any number of examples, compiled and batch by batch.

    The batch axis of the compiled function is open, so the last and shorter batch, and
    later calls of another size, use the same trace. Keep the object to explain again
    without tracing again: it reads the current weights of the model on every call.

    Args:
        core: Traceable function of `x` `(B, *S)` and labels `y` or `None`, to a tensor
            with batch axis first; examples must not depend on each other.
        batch_size: Examples per call of `core`, at least 1.
        classes: Of the model, to check class indices against; `None` checks nothing.
        ignored: Labels that stand for no class and yet are none too many.

    Raises:
        ValueError: If `batch_size` is not a positive integer.

    Example:
        >>> import numpy as np
        >>> from keras_jsigr.saliency.batched import BatchedExplainer
        >>> double = BatchedExplainer(lambda x, y: 2.0 * x, batch_size=2)
        >>> double(np.ones((3, 1))).tolist()
        [[2.0], [2.0], [2.0]]
    """

    def __init__(
        self,
        core: Core,
        batch_size: int = 128,
        classes: int | None = None,
        ignored: Sequence[int] = (),
    ) -> None:
        if not isinstance(batch_size, int) or batch_size < 1:
            raise ValueError(
                f"Got batch_size {batch_size!r}, expected a positive integer. "
                "Lower it if memory runs out."
            )
        self.core = core
        self.batch_size = batch_size
        self.classes = classes
        self.ignored = list(ignored)
        self._compiled: dict[Any, Any] = {}

    def __call__(self, x: Any, y: Any = None) -> Any:
        """Return what `core` gives for all examples, NumPy for NumPy.

        Args:
            x: Array or tensor `(N, *S)`; float64 arrays become float32 as in `fit`.
            y: Labels `(N, ...)`, or `None`.

        Returns:
            `(N, ...)`: a tensor if `x` is one, else a NumPy array.

        Raises:
            ValueError: If `x` and `y` differ in length, or if a label is no class.
        """
        as_tensor = tf.is_tensor(x)
        columns = [as_fit_sees(x)] + ([] if y is None else [as_fit_sees(y)])
        count = check_lengths(*columns)
        if y is not None and self.classes is not None:
            labels = np.asarray(columns[1])
            if labels.shape in ((count,), (count, 1)):
                known = labels[~np.isin(labels, self.ignored)]
                check_class_indices(known, self.classes)
        if count == 0:
            # TensorFlow's fused convolutions fail on empty batches: one row for none.
            columns = [np.zeros((1, *c.shape[1:]), c.dtype) for c in columns]
        explain = self._function(columns)
        parts = [
            explain(
                *(
                    tf.convert_to_tensor(column[start : start + self.batch_size])
                    for column in columns
                )
            )
            for start in range(0, max(count, 1), self.batch_size)
        ]
        if as_tensor:
            return tf.concat(parts, axis=0)[:count]
        return np.concatenate([part.numpy() for part in parts])[:count]

    def _function(self, columns: list[Any]) -> Any:
        specs = [
            tf.TensorSpec((None, *column.shape[1:]), tf.as_dtype(column.dtype))
            for column in columns
        ]
        key = tuple(specs)
        if key not in self._compiled:
            # The one concrete function: calling the `tf.function` itself would warn
            # of retracing where many explainers are made, each for another model.
            # No AutoGraph: there is no Python control flow on tensors to convert.
            compiled = tf.function(self._call, autograph=False)
            self._compiled[key] = compiled.get_concrete_function(*specs)
        return self._compiled[key]

    def _call(self, x: tf.Tensor, y: tf.Tensor | None = None) -> tf.Tensor:
        return self.core(x, y)


def as_fit_sees(data: Any) -> Any:
    """Return data in the type in which `fit` hands it to a model.

    Args:
        data: Array, tensor or nested lists.

    Returns:
        The tensor, or a NumPy array; half precision, and float64 of an array, cast
        to float32.

    Raises:
        TypeError: If it is not an array of numbers.

    Example:
        >>> from keras_jsigr.saliency.batched import as_fit_sees
        >>> as_fit_sees([0.5]).dtype.name
        'float32'
    """
    if tf.is_tensor(data):
        return tf.cast(data, tf.float32) if data.dtype in _HALF else data
    kind = type(data).__name__
    try:
        data = np.asarray(data)
    except ValueError:  # arrays of several shapes
        data = np.asarray(None)
    if data.dtype.kind in "OSU" or data.ndim == 0:
        raise TypeError(
            f"Got {kind}, expected one array or tensor of numbers with a batch axis. "
            "Collect a dataset into an array; for a model of several inputs pass a "
            "callable of the one to explain."
        )
    narrow = data.dtype == np.float64 or tf.as_dtype(data.dtype) in _HALF
    return data.astype(np.float32) if narrow else data


def check_lengths(x: Any, y: Any = None) -> int:
    """Return the number of examples; refuse data and labels of unequal length.

    Args:
        x: Array `(N, ...)`.
        y: Array `(N, ...)` or `None`.

    Returns:
        N.

    Raises:
        ValueError: If the lengths differ.

    Example:
        >>> import numpy as np
        >>> from keras_jsigr.saliency.batched import check_lengths
        >>> check_lengths(np.zeros((3, 2)), np.zeros(3))
        3
    """
    if y is not None and len(x) != len(y):
        raise ValueError(
            f"Got {len(x)} examples and {len(y)} labels, expected as many of both. "
            "Pass `y=None` to explain the model's own decisions."
        )
    return len(x)


def probe_of(x: Any) -> Any:
    """Return examples to try a model on: the first few, without those with NaN.

    One row of logits may happen to look like probabilities.

    Args:
        x: Array or tensor `(N, *S)`.

    Returns:
        Of the first 16 examples those that are finite, or the very first.

    Raises:
        ValueError: If there is none.

    Example:
        >>> import numpy as np
        >>> from keras_jsigr.saliency.batched import probe_of
        >>> probe_of(np.array([[1.0, 2.0], [np.nan, 1.0], [3.0, 4.0]])).tolist()
        [[1.0, 2.0], [3.0, 4.0]]
    """
    if len(x) == 0:
        raise ValueError(
            f"Got no examples, data of shape {tuple(x.shape)}; expected at least one. "
            "Check how the data are selected."
        )
    few = x[:_PROBES]
    finite = finite_rows(np.asarray(as_float(few)))
    if finite.all() or not finite.any():
        return few if finite.all() else few[:1]
    return tf.boolean_mask(few, finite) if tf.is_tensor(few) else few[finite]
