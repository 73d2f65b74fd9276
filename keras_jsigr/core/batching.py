"""Run the batches of a call side by side, where nobody can tell the difference."""

from __future__ import annotations

import os
import re
import types
import weakref
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from keras_jsigr.core import arguments
from keras_jsigr.core.inputs import as_float, finite_rows
from keras_jsigr.core.logits import LogitsFn, as_logits, has_valid_logits
from keras_jsigr.core.scores import check_class_indices

# Operations whose effect or result depends on what ran before: writes to variables,
# random numbers with a hidden state, Python code, printing.
_ORDERED = re.compile(
    "Assign|Resource(Scatter|Apply|Sparse)|(Eager)?PyFunc|Print|Rng|"
    "(Random|Truncated|Multinomial|Parameterized|Stateful(?!PartitionedCall))"
)


# A small network leaves a core idle while another operation is dispatched: three
# batches at once give 2.2 times the speed at one image per batch, 1.3 times at 64.
_MOST_WORKERS = 4


# Values in the inputs of a batch. Larger batches keep all cores busy by themselves, and
# their activations would be held several times.
_SMALL = 2_000_000


def is_stateful(function: Any) -> bool:
    """Tell whether two calls of a compiled function may depend on their order."""
    graph = function.graph.as_graph_def()
    bodies = [graph.node, *(inner.node_def for inner in graph.library.function)]
    return any(_ORDERED.match(node.op) for nodes in bodies for node in nodes)


def workers_for(values: int) -> int:
    """Return how many batches to work on at once."""
    cores = os.cpu_count() or 1
    alone = (
        values > _SMALL
        or cores == 1
        or tf.distribute.has_strategy()
        or bool(tf.config.list_physical_devices("GPU"))
    )
    return 1 if alone else min(cores + 1, _MOST_WORKERS)


def side_by_side(call: Callable[[int], Any], count: int, workers: int) -> Iterator[Any]:
    """Yield `call(0)`, `call(1)`, ... in this order, several computed at once."""
    if workers == 1 or count == 1:
        yield from map(call, range(count))
        return
    pool = ThreadPoolExecutor(min(workers, count), thread_name_prefix="attack")
    try:
        yield from pool.map(call, range(count))
    finally:
        pool.shutdown(cancel_futures=True)


@dataclass(frozen=True)
class Program:
    """A compiled function of one model."""

    run: Callable[..., Any]
    classes: int
    ordered: bool


Build = Callable[[LogitsFn, tf.Tensor, int], tuple[Callable[..., Any], list[Any]]]


def never_empty(logits_fn: LogitsFn) -> LogitsFn:
    """Ask a model about one row of zeros instead of an empty batch."""

    def ask(x: tf.Tensor) -> tf.Tensor:
        rows = tf.shape(x)[0]
        missing = tf.cast(tf.equal(rows, 0), tf.int32)
        # Padding by nothing is a copy; a tf.cond would cost more in every step.
        padded = tf.pad(x, [[0, missing]] + [[0, 0]] * (x.shape.rank - 1))
        return logits_fn(tf.ensure_shape(padded, [None, *x.shape[1:]]))[:rows]

    return ask


def _compile(build: Build, model: Any, probe: tf.Tensor) -> Program:
    logits_fn = never_empty(as_logits(model, probe))
    classes = int(logits_fn(probe).shape[-1])
    body, signature = build(logits_fn, probe, classes)
    # A concrete function owns a graph and handles of weights, no Python function: so
    # the closure over the model dies here, and the model can be collected.
    function = tf.function(body, input_signature=signature, autograph=False)
    try:
        run = function.get_concrete_function()
    except (NotImplementedError, TypeError) as error:
        if isinstance(model, keras.Model):
            raise
        raise TypeError(
            f"The callable cannot be compiled: {str(error).splitlines()[0]} Expected "
            "one of TensorFlow operations. Wrap other code, `lambda x: "
            "tf.numpy_function(f, [x], tf.float32)`: it has no gradients, and Square, "
            "SPSA and HopSkipJump need none."
        ) from error
    return Program(run, classes, is_stateful(run))


class CompiledCache:
    """Keep compiled functions per model, as long as the model lives."""

    def __init__(self) -> None:
        self._by_owner: weakref.WeakKeyDictionary[Any, dict[Hashable, Program]] = (
            weakref.WeakKeyDictionary()
        )

    def get(self, name: str, build: Build, model: Any, probe: tf.Tensor) -> Program:
        """Return the program `name` for a model and a sample shape; compile it once."""
        # `robust.logits` is a new object at every access: keep it with its model.
        owner = _owner_of(model)
        part = None if owner is model else model.__func__
        try:
            programs = self._by_owner.setdefault(owner, {})
        except TypeError:  # No weak reference or no hash: compiled for this call only.
            return _compile(build, model, probe)
        key = (name, part, tuple(probe.shape[1:]), probe.dtype)
        if key not in programs:
            programs[key] = _compile(build, model, probe)
        return programs[key]

    def forget(self, *models: Any) -> None:
        """Drop the programs of models, which may have changed since."""
        for model in models:
            try:
                self._by_owner.pop(_owner_of(model), None)
            except TypeError:  # of it nothing is kept
                continue

    def __reduce__(self) -> tuple[type[CompiledCache], tuple[()]]:
        # Copies and pickles of an attack start with nothing compiled.
        return CompiledCache, ()


def _owner_of(model: Any) -> Any:
    return model.__self__ if isinstance(model, types.MethodType) else model


PROGRAMS = CompiledCache()


_PROBES = 16


def predict_logits(
    model: Any, x: Any, batch_size: int = 128, programs: CompiledCache = PROGRAMS
) -> npt.NDArray[Any]:
    """Compute the logits of a model, compiled and batch by batch."""
    program = programs.get("logits", _logits, model, tf.convert_to_tensor(x[:_PROBES]))
    if len(x) == 0:
        return np.zeros((0, program.classes), np.float32)
    parts = [
        program.run(tf.convert_to_tensor(x[start : start + batch_size])).numpy()
        for start in range(0, len(x), batch_size)
    ]
    return np.concatenate(parts)


def classified_rightly(logits: Any, labels: Any) -> npt.NDArray[np.bool_]:
    """Tell per example whether the largest logit is that of the label."""
    logits = np.asarray(logits)
    right: npt.NDArray[np.bool_] = has_valid_logits(logits).numpy()
    right &= logits.argmax(-1) == np.asarray(labels)
    return right


def _logits(logits_fn: LogitsFn, probe: tf.Tensor, classes: int) -> Any:
    del classes
    return logits_fn, [tf.TensorSpec((None, *probe.shape[1:]), probe.dtype)]


def sum_in_groups(
    count: Any,
    group: Any,
    part: Callable[[tf.Tensor, Any], Any],
    like: Any,
) -> Any:
    """Add up what groups of copies contribute; the loop keeps the sum alone."""

    def plus(total: Any, first: tf.Tensor, size: Any) -> Any:
        more = part(first, size)
        return tf.nest.map_structure(
            lambda a, b: tf.ensure_shape(a + b, a.shape), total, more
        )

    nothing = tf.nest.map_structure(tf.zeros_like, like)
    if isinstance(count, int) and isinstance(group, int):
        rest = count % group
        total = _loop(count - rest, lambda _: group, plus, nothing)
        return plus(total, tf.constant(count - rest), rest) if rest else total
    count = tf.convert_to_tensor(count, tf.int32)
    return _loop(count, lambda first: tf.minimum(group, count - first), plus, nothing)


def _loop(
    count: Any,
    size_at: Callable[[tf.Tensor], Any],
    plus: Callable[[Any, tf.Tensor, Any], Any],
    nothing: Any,
) -> Any:
    def add(first: tf.Tensor, total: Any) -> Any:
        size = size_at(first)
        return first + size, plus(total, first, size)

    start = (tf.constant(0), nothing)
    end: tuple[tf.Tensor, Any] = tf.while_loop(
        lambda first, _: first < count, add, start
    )
    return end[1]


# Enough examples per call of the model that its fixed cost does not count.
_EXAMPLES_AT_ONCE = 512


def sum_over_draws(
    count: Any,
    examples: Any,
    draw: Callable[[tf.Tensor, Any], Any],
    like: Any,
) -> Any:
    """Add up what groups of draws contribute."""
    if isinstance(examples, int):
        group = max(_EXAMPLES_AT_ONCE // max(examples, 1), 1)
    else:
        group = tf.maximum(_EXAMPLES_AT_ONCE // tf.maximum(examples, 1), 1)
    return sum_in_groups(count, group, draw, like)


def mean_over(
    count: int, function: Callable[[Any], tf.Tensor], like: tf.Tensor
) -> tf.Tensor:
    """Compute `(1 / count) * sum_{n < count} function(n)`."""
    if count == 1:
        return function(tf.constant(0))

    def add(number: tf.Tensor, total: tf.Tensor) -> Any:
        return number + 1, total + function(number)

    _, total = tf.while_loop(
        lambda number, _: number < count,
        add,
        (tf.constant(0), tf.zeros_like(like)),
        maximum_iterations=count,
    )
    return total / count


def map_each(
    function: Callable[[tf.Tensor], tf.Tensor], elements: Any, shape: Any
) -> tf.Tensor:
    """Stack `function(elements[i])` over all `i`, in constant memory besides."""
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


class ColumnProgram:
    """Apply a function of tensors to arrays of any length, compiled for any batch size."""

    def __init__(self, function: Callable[..., tf.Tensor], batch_size: int) -> None:
        self._function = function
        self._batch_size = batch_size
        self._compiled: Any = None

    def __call__(self, *columns: Any) -> npt.NDArray[Any]:
        """Return the results of all examples."""
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
        >>> from keras_jsigr.core.batching import BatchedExplainer
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
        """Return what `core` gives for all examples, NumPy for NumPy."""
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
    """Return data in the type in which `fit` hands it to a model."""
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
    """Return the number of examples; refuse data and labels of unequal length."""
    if y is not None and len(x) != len(y):
        raise ValueError(
            f"Got {len(x)} examples and {len(y)} labels, expected as many of both. "
            "Pass `y=None` to explain the model's own decisions."
        )
    return len(x)


def probe_of(x: Any) -> Any:
    """Return examples to try a model on: the first few, without those with NaN."""
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


# From here on a call is no faster per example: 128 x 5 images of 28 x 28 on 2 cores.
VALUES_AT_ONCE = 2**19


def sum_in_chunks(
    count: int,
    x: tf.Tensor,
    part: Callable[[tf.Tensor, tf.Tensor], Any],
    like: Any,
    chunk: int | None = None,
) -> Any:
    """Add up what groups of copies of a batch contribute."""
    values = int(np.prod(x.shape[1:], dtype=np.int64))
    examples = VALUES_AT_ONCE // max(values, 1) if chunk is None else chunk
    group = tf.maximum(examples // tf.maximum(tf.shape(x)[0], 1), 1)
    return sum_in_groups(count, group, part, like)


def as_rows(copies: Any) -> tf.Tensor:
    """Put the copies of a batch below each other."""
    shape = tf.shape(copies)
    rows = tf.reshape(copies, tf.concat([[shape[0] * shape[1]], shape[2:]], axis=0))
    return tf.ensure_shape(rows, (None, *copies.shape[2:]))


def check_chunk(chunk: int | None) -> None:
    """Refuse a number of examples at once that is not positive."""
    if chunk is not None:
        arguments.count("chunk", chunk)
