"""Examples of arrays, a `tf.data.Dataset` or a `keras.utils.PyDataset`, in blocks.

A dataset is read once, from its first element to its last: no order between two passes
and no second pass is needed. Blocks have one size, whatever the batches of the dataset.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain
from typing import Any, NamedTuple, TypeVar

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from keras_jsigr.core.logits import base_model

Item = TypeVar("Item")
Value = TypeVar("Value")
# A block is 256 MB, but no fewer than 512 and no more than 4,096 examples.
_BLOCK_BYTES, _LEAST, _MOST = 2**28, 512, 4096
# Enough batches per block to work on several at once.
_BATCHES = 8


def parallel_map(
    call: Callable[[Item], Value], items: Iterable[Item], workers: int = 1
) -> Iterator[Value]:
    """Yield `call(item)` in order; at most `workers` items are taken ahead."""
    if workers <= 1:
        yield from map(call, items)
        return
    pool = ThreadPoolExecutor(workers, thread_name_prefix="batch")
    ahead: deque[Future[Value]] = deque()
    try:
        for item in items:
            ahead.append(pool.submit(call, item))
            if len(ahead) > workers:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


class Block(NamedTuple):
    """Some examples, their labels or `None`, and the place of the first example."""

    x: Any
    y: Any
    first: int


class Blocks(Iterator[Block]):
    """The examples of arrays or of a dataset, block by block; `head` is the first block.

    With a `batch_size`, a block is a whole number of batches. `model` names the input to take of
    elements with several.
    """

    def __init__(
        self,
        x: Any,
        y: Any = None,
        *,
        model: Any = None,
        batch_size: int | None = None,
        size: int | None = None,
    ) -> None:
        def size_of(x: Any) -> int:
            return size or block_size(x, batch_size)

        if not is_stream(x):
            rest = _slices(x, y, size_of(x))
        elif y is not None:
            raise ValueError(
                "`y` beside a dataset: got labels, expected y=None. The labels are the second part "
                "of the dataset's elements, (x, y)."
            )
        else:
            rest = _rebatched(_batches(x, base_model(model)), size_of)
        head = next(rest, None)
        if head is None:
            raise ValueError(
                "The dataset is empty: got no examples, expected at least one. Check its filters "
                "and paths; a generator that was read to its end gives nothing more."
            )
        self.head = head
        self._blocks = chain([head], rest)

    def __next__(self) -> Block:
        return next(self._blocks)


def is_stream(data: Any) -> bool:
    """Tell whether data are a dataset, and not an array."""
    return isinstance(data, tf.data.Dataset | keras.utils.PyDataset | Blocks)


def block_size(x: Any, batch_size: int | None = None) -> int:
    """Return how many examples like those in `x` to hold at once, by their size alone."""
    width = x.itemsize if isinstance(x, np.ndarray) else x.dtype.size
    bytes_each = math.prod(x.shape[1:]) * width
    most: int = min(max(_BLOCK_BYTES // max(bytes_each, 1), _LEAST), _MOST)
    if batch_size is None:
        return most
    return batch_size * min(max(most // batch_size, 1), _BATCHES)


def _slices(x: Any, y: Any, size: int) -> Iterator[Block]:
    for at in range(0, max(len(x), 1), size):
        rows = slice(at, at + size)
        yield Block(x[rows], None if y is None else y[rows], at)


def _rebatched(batches: Iterable[Sequence[Any]], size_of: Callable[[Any], int]) -> Iterator[Block]:
    held: list[Sequence[Any]] = []
    count = first = size = 0
    for batch in batches:
        size = size or size_of(batch[0])
        held.append(batch)
        count += len(batch[0])
        if count < size:
            continue
        x, y = _joined(held)
        whole = count - count % size
        for block in _slices(x[:whole], None if y is None else y[:whole], size):
            yield block._replace(first=first)
            first += size
        held, count = [(x[whole:], None if y is None else y[whole:])], count - whole
    if count:
        x, y = _joined(held)
        yield Block(x, y, first)


def _joined(batches: Sequence[Sequence[Any]]) -> tuple[Any, Any]:
    x, y = zip(*batches, strict=True)
    return np.concatenate(x), None if y[0] is None else np.concatenate(y)


def _batches(data: Any, model: Any) -> Iterator[tuple[npt.NDArray[Any], Any]]:
    """Yield inputs and labels of every element as arrays, checked."""
    inputs = getattr(model, "inputs", None) if isinstance(model, keras.Model) else None
    wanted = inputs[0] if inputs and len(inputs) == 1 else None
    name = None if wanted is None else wanted.name
    shapes: Any = None
    for number, element in enumerate(_elements(data)):
        x, y, _ = keras.utils.unpack_x_y_sample_weight(element)
        x = _only_array(x, "inputs", name)
        y = None if y is None else _only_array(y, "labels")
        _check_batched(x, y, None if wanted is None else tuple(wanted.shape[1:]))
        found = (x.shape[1:], None if y is None else y.shape[1:])
        shapes = shapes or found
        if found != shapes:
            raise ValueError(
                f"Batch {number} has examples and labels of shapes {found}, expected {shapes} as "
                "in the first batch. Resize or pad the examples to one shape."
            )
        yield x, y


def _elements(data: Any) -> Iterator[Any]:
    """Yield the elements of a dataset; a `PyDataset` is read by its workers, as threads."""
    if isinstance(data, tf.data.Dataset):
        if int(data.cardinality()) == tf.data.INFINITE_CARDINALITY:
            raise ValueError(
                "The dataset never ends: got one that repeats, expected a single pass. Pass it "
                "without `repeat()`, or `dataset.take(batches)`."
            )
        yield from data
        return
    if (count := data.num_batches) is None:
        raise ValueError(
            f"`{type(data).__name__}` never ends: got num_batches None, expected their number. "
            "Return it from `__len__`."
        )
    yield from parallel_map(data.__getitem__, range(count), int(data.workers or 1))


def _only_array(value: Any, what: str, name: str | None = None) -> npt.NDArray[Any]:
    """Return the one array of an element: that of the model's input, or the only one."""
    if isinstance(value, dict) and name in value:
        value = value[name]
    leaves = keras.tree.flatten(value)
    if len(leaves) != 1:
        of = sorted(value) if isinstance(value, dict) else f"{len(leaves)} arrays"
        raise ValueError(
            f"The dataset's elements have several {what}: got {of}, expected one array, in a "
            "dictionary under the name of the model's input. Choose it by "
            "`dataset.map(lambda x, y: (x['image'], y))`; for a model of several inputs pass a "
            "callable that fills in the others."
        )
    if isinstance(leaves[0], tf.RaggedTensor | tf.SparseTensor):
        raise TypeError(
            f"The dataset's {what} are a {type(leaves[0]).__name__}, expected dense batches. Map "
            "them with `tf.sparse.to_dense(x)` or `x.to_tensor(shape=...)`."
        )
    return np.asarray(leaves[0])


def _check_batched(x: npt.NDArray[Any], y: Any, shape: tuple[Any, ...] | None) -> None:
    """Refuse elements that are single examples."""
    single = x.ndim == 0 or (y is not None and y.ndim == 0)
    if shape and len(shape) == x.ndim:
        single |= all(w in (None, got) for w, got in zip(shape, x.shape, strict=True))
    labels = None if y is None else y.shape
    if single or (y is not None and len(x) != len(y)):
        raise ValueError(
            f"The dataset is not batched: got an element of shapes {x.shape} and {labels}, "
            "expected a batch of examples (B, ...) with as many labels. Batch it, "
            "`dataset.batch(128)`."
        )
