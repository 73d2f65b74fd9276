"""Compile a function of a model once, and run it batch by batch.

Programs are compiled with an open batch axis and kept per model (`CompiledCache`) or
per function (`BatchedFunction`); `parallel_batches` runs over any number of examples.
"""

from __future__ import annotations

import os
import re
import threading
import types
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from keras_jsigr.core.inputs import as_float, finite_rows
from keras_jsigr.core.logits import Logits, LogitsFn, as_logits, has_valid_logits, told_in_words
from keras_jsigr.core.scores import check_class_indices
from keras_jsigr.core.streams import Blocks, is_stream, parallel_map
from keras_jsigr.core.variables import unchanged

Value = TypeVar("Value")
# Operations that depend on what ran before: writes, hidden random states, Python code.
_ORDERED = re.compile(
    "Assign|Resource(Scatter|Apply|Sparse)|(Eager)?PyFunc|Print|Rng|"
    "(Random|Truncated|Multinomial|Parameterized|Stateful(?!PartitionedCall))"
)
# Three small batches at once: 2.2 times as fast at one image per batch, 1.3 at 64.
_MOST_WORKERS = 4
# Values in the inputs: larger batches keep all cores busy and need the memory.
_SMALL = 2_000_000


def operations(function: Any) -> set[str]:
    """Return the kinds of operations in a compiled function."""
    graph = function.graph.as_graph_def()
    bodies = [graph.node, *(inner.node_def for inner in graph.library.function)]
    return {node.op for nodes in bodies for node in nodes}


def runs_python(function: Any) -> bool:
    """Tell whether a compiled function calls code that TensorFlow cannot look into."""
    return any(name.endswith("PyFunc") for name in operations(function))


def is_stateful(function: Any) -> bool:
    """Tell whether two calls of a compiled function may depend on their order."""
    return any(map(_ORDERED.match, operations(function)))


def workers_for(values: int) -> int:
    """Return how many batches of so many values to work on at once."""
    cores = os.cpu_count() or 1
    alone = (
        values > _SMALL
        or cores == 1
        or tf.distribute.has_strategy()
        or bool(tf.config.list_physical_devices("GPU"))
    )
    return 1 if alone else min(cores + 1, _MOST_WORKERS)


def parallel_batches(
    call: Callable[[slice], Value], count: int, batch_size: int, workers: int = 1
) -> Iterator[Value]:
    """Yield `call(rows)` per batch in order; workers need a stateless program."""
    batches = [slice(at, at + batch_size) for at in range(0, count, batch_size)]
    yield from parallel_map(call, batches, min(workers, len(batches)))


def join_batches(parts: Sequence[Any], like: Any) -> Any:
    """Concatenate the results of batches: a tensor if `like` is one, else an array."""
    if tf.is_tensor(like):
        return tf.concat(parts, axis=0)
    return np.concatenate([part.numpy() for part in parts])


@dataclass(frozen=True)
class Program:
    """A compiled function of one model."""

    compiled: Any
    classes: int
    ordered: bool
    # What it may assign, held while the variables are known.
    variables: Sequence[tf.Variable] = ()
    python: bool = False

    @classmethod
    def of(cls, compiled: Any, classes: int = 0) -> Program:
        """Describe a compiled function."""
        ordered = is_stateful(compiled)
        python = ordered and runs_python(compiled)  # which never is without an order
        known = compiled.graph.variables if ordered else ()
        # Weights are trained, perhaps in another thread, and assigned by Python at most.
        kept = [v for v in known if python or not v.trainable]
        return cls(compiled, classes, ordered, kept, python)

    def run(self, *values: Any) -> Any:
        """Call the function."""
        with told_in_words():
            return self.compiled(*values)

    def leaves_alone(self, model: Any) -> AbstractContextManager[Any]:
        """Put back at the end what the function, which is made of `model`, assigns."""
        if not self.ordered:
            return nullcontext()
        # Python code that TensorFlow calls runs where `stateless` is not known.
        return unchanged(*self.variables, model, layers=self.python)


Build = Callable[[LogitsFn, tf.Tensor, int], tuple[Callable[..., Any], list[Any]]]


class _Recent(OrderedDict[Hashable, Any]):
    """Keep the values used last, at most `size` of them."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self._size, self._lock = size, threading.Lock()

    def get_or_make(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """Return the value of `key`; make it once."""
        with self._lock:
            if key in self:
                self.move_to_end(key)
                return self[key]
        value = make()  # not under the lock: another thread may ask for another key
        with self._lock:
            value = self.setdefault(key, value)
            while len(self) > self._size:
                self.popitem(last=False)
        return value


def open_batch(value: Any) -> tf.TensorSpec:
    """Return the spec of batches of any size of the examples in `value`."""
    return tf.TensorSpec((None, *value.shape[1:]), tf.as_dtype(value.dtype))


def never_empty(logits_fn: Logits) -> Logits:
    """Ask a model about one row of zeros instead of an empty batch."""

    def ask(x: tf.Tensor) -> tf.Tensor:
        rows = tf.shape(x)[0]
        missing = tf.cast(tf.equal(rows, 0), tf.int32)
        # Padding by nothing is a copy; a tf.cond would cost more in every step.
        padded = tf.pad(x, [[0, missing]] + [[0, 0]] * (x.shape.rank - 1))
        return logits_fn(tf.ensure_shape(padded, [None, *x.shape[1:]]))[:rows]

    return Logits(ask, logits_fn.resolution)


def _compile(build: Build, model: Any, probe: tf.Tensor) -> Program:
    logits_fn = never_empty(as_logits(model, probe))
    with told_in_words(), unchanged(model, layers=False):
        classes = int(logits_fn(probe).shape[-1])
    body, signature = build(logits_fn, probe, classes)
    # A concrete function holds no Python function, so the model can be collected.
    function = tf.function(body, input_signature=signature, autograph=False)
    try:
        run = function.get_concrete_function()
    except (NotImplementedError, TypeError) as error:
        if isinstance(model, keras.Model):
            raise
        raise TypeError(
            f"The callable cannot be compiled: {str(error).splitlines()[0]} Expected one of "
            "TensorFlow operations. Wrap other code, `lambda x: tf.numpy_function(f, [x], "
            "tf.float32)`: it has no gradients, and Square, SPSA and HopSkipJump need none."
        ) from error
    return Program.of(run, classes)


class CompiledCache:
    """Keep the programs of a model that were used last, as long as the model lives.

    Of a callable nothing but its identity is known: `forget` it when it changes.
    """

    def __init__(self, size: int = 32) -> None:
        self._size, self._lock = size, threading.Lock()
        self._by_owner: weakref.WeakKeyDictionary[Any, _Recent] = weakref.WeakKeyDictionary()

    def get(self, key: Hashable, build: Build, model: Any, probe: tf.Tensor) -> Program:
        """Return the program `key` for a model and a sample shape; compile it once."""
        return self.keep(key, model, probe, lambda: _compile(build, model, probe))

    def keep(self, key: Hashable, model: Any, probe: tf.Tensor, make: Callable[[], Value]) -> Value:
        """Return what `make` returned before for this model; it must not hold it."""
        owner = owner_of(model)
        part = None if owner is model else model.__func__
        try:
            with self._lock:
                programs = self._by_owner.setdefault(owner, _Recent(self._size))
        except TypeError:  # No weak reference or no hash: compiled for this call only.
            return make()
        whole = (key, part, tuple(probe.shape[1:]), probe.dtype, _structure(owner))
        value: Value = programs.get_or_make(whole, make)
        return value

    def forget(self, *models: Any) -> None:
        """Drop the programs of models, which may have changed since."""
        for model in models:
            try:
                with self._lock:
                    self._by_owner.pop(owner_of(model), None)
            except TypeError:  # nothing is kept of it
                continue

    def __reduce__(self) -> tuple[type[CompiledCache], tuple[int]]:
        # Copies and pickles start with nothing compiled.
        return CompiledCache, (self._size,)


def owner_of(model: Any) -> Any:
    """Return the object of a bound method, and anything else as it is."""
    # `robust.logits` is a new object at every access: its owner stands for it.
    return model.__self__ if isinstance(model, types.MethodType) else model


def _structure(model: Any) -> Hashable:
    """Tell Keras models apart whose layers or activations were exchanged since."""
    if not isinstance(model, keras.Model):
        return None
    layers = model._flatten_layers(include_self=False, recursive=True)
    return tuple((id(each), id(getattr(each, "activation", None))) for each in layers)


PROGRAMS = CompiledCache()
_PROBES = 16


def probe_rows(x: Any) -> tf.Tensor:
    """Return the first examples, to see by them how a model answers."""
    # Several: one row of logits may happen to look like probabilities.
    return tf.convert_to_tensor(x[:_PROBES])


def predict_logits(
    model: Any, x: Any, batch_size: int = 128, programs: CompiledCache = PROGRAMS
) -> npt.NDArray[Any]:
    """Compute the logits of a model, compiled and batch by batch."""
    program = programs.get("logits", _logits, model, probe_rows(x))
    if len(x) == 0:
        return np.zeros((0, program.classes), np.float32)
    parts = parallel_batches(
        lambda rows: program.run(tf.convert_to_tensor(x[rows])), len(x), batch_size
    )
    logits: npt.NDArray[Any] = join_batches(list(parts), None)
    return logits


def _logits(logits_fn: LogitsFn, probe: tf.Tensor, classes: int) -> Any:
    del classes
    return logits_fn, [open_batch(probe)]


def classified_rightly(logits: Any, labels: Any) -> npt.NDArray[np.bool_]:
    """Tell per example whether the largest logit is that of the label."""
    logits = np.asarray(logits)
    right: npt.NDArray[np.bool_] = has_valid_logits(logits).numpy()
    right &= logits.argmax(-1) == np.asarray(labels)
    return right


class BatchedFunction:
    """Apply a function of tensors to arrays of any length, compiled once."""

    def __init__(self, function: Callable[..., tf.Tensor], batch_size: int) -> None:
        self._function = function
        self.batch_size = batch_size
        self._compiled = _Recent(8)

    def __call__(self, *columns: Any) -> Any:
        """Return the results of all examples, NumPy for NumPy."""
        count = len(columns[0])
        if count == 0:
            # TensorFlow's fused convolutions fail on empty batches: one row for none.
            kinds = [tf.as_dtype(c.dtype).as_numpy_dtype for c in columns]
            rows = [
                np.zeros((1, *c.shape[1:]), kind) for c, kind in zip(columns, kinds, strict=True)
            ]
        else:
            rows = list(columns)
        specs = tuple(open_batch(column) for column in rows)
        program = self._compiled.get_or_make(specs, lambda: self._compile(specs))
        with program.leaves_alone(self._function):
            parts = parallel_batches(
                lambda at: program.run(*(tf.convert_to_tensor(column[at]) for column in rows)),
                max(count, 1),
                self.batch_size,
            )
            return join_batches(list(parts), columns[0])[:count]

    def _compile(self, specs: Sequence[tf.TensorSpec]) -> Any:
        # A concrete function: many a `tf.function`, one per model, warns of retracing.
        compiled = tf.function(lambda *batch: self._function(*batch), autograph=False)
        return Program.of(compiled.get_concrete_function(*specs))


def chunked_sum(count: Any, chunk: Any, part: Callable[[tf.Tensor, Any], Any], like: Any) -> Any:
    """Compute `sum_n part(n)` in a loop; `part(first, size)` sums `size` terms."""

    def add(first: tf.Tensor, total: Any, size: Any) -> Any:
        more = part(first, size)
        return tf.nest.map_structure(lambda a, b: tf.ensure_shape(a + b, a.shape), total, more)

    def loop(count: Any, size_at: Callable[[tf.Tensor], Any]) -> Any:
        def body(first: tf.Tensor, total: Any) -> Any:
            size = size_at(first)
            return first + size, add(first, total, size)

        start = (tf.constant(0), tf.nest.map_structure(tf.zeros_like, like))
        return tf.while_loop(lambda first, _: first < count, body, start)[1]

    if isinstance(count, int) and isinstance(chunk, int):
        rest = count % chunk
        total = loop(count - rest, lambda _: chunk)
        return add(tf.constant(count - rest), total, rest) if rest else total
    count = tf.convert_to_tensor(count, tf.int32)
    return loop(count, lambda first: tf.minimum(chunk, count - first))


# Enough examples per call of the model that its fixed cost does not count.
_EXAMPLES_AT_ONCE = 512


def draws_at_once(examples: Any) -> Any:
    """Return how many draws per example to ask a model about at once."""
    if isinstance(examples, int):
        return max(_EXAMPLES_AT_ONCE // max(examples, 1), 1)
    return tf.maximum(_EXAMPLES_AT_ONCE // tf.maximum(examples, 1), 1)


# From here on a call is no faster per example: 128 x 5 images of 28 x 28 on 2 cores.
VALUES_AT_ONCE = 2**19


def copies_at_once(x: tf.Tensor, chunk: int | None = None) -> tf.Tensor:
    """Return how many copies of a batch hold `chunk` examples, or 2^19 values."""
    values = int(np.prod(x.shape[1:], dtype=np.int64))
    examples = VALUES_AT_ONCE // max(values, 1) if chunk is None else chunk
    return tf.maximum(examples // tf.maximum(tf.shape(x)[0], 1), 1)


def sequential_map(
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


def as_rows(copies: Any) -> tf.Tensor:
    """Put the copies of a batch, `(k, B, *S)`, below each other, `(k * B, *S)`."""
    shape = tf.shape(copies)
    rows = tf.reshape(copies, tf.concat([[shape[0] * shape[1]], shape[2:]], axis=0))
    return tf.ensure_shape(rows, (None, *copies.shape[2:]))


_HALF = (tf.float16, tf.bfloat16)
Core = Callable[[tf.Tensor, tf.Tensor | None], tf.Tensor]


class BatchedExplainer:
    """Apply `core(x, y)` to any number of examples, compiled and batch by batch."""

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
        self._core = core
        self.batch_size = batch_size
        self.classes = classes
        self.ignored = list(ignored)
        self._run = BatchedFunction(lambda x, y=None: core(x, y), batch_size)

    @property
    def core(self) -> Core:
        """What is compiled."""
        return self._core

    def __call__(self, x: Any, y: Any = None) -> Any:
        """Return what `core` gives for all examples, NumPy for NumPy and datasets."""
        if is_stream(x):
            size = self.batch_size
            blocks = x if isinstance(x, Blocks) else Blocks(x, y, batch_size=size)
            return np.concatenate([self._explain(block.x, block.y) for block in blocks])
        return self._explain(x, y)

    def _explain(self, x: Any, y: Any) -> Any:
        columns = [as_fit_sees(x)] + ([] if y is None else [as_labels(y)])
        count = check_lengths(*columns)
        if y is not None and self.classes is not None:
            labels = np.asarray(columns[1])
            if labels.shape in ((count,), (count, 1)):
                known = labels[~np.isin(labels, self.ignored)]
                check_class_indices(known, self.classes)
        return self._run(*columns)


def as_labels(y: Any) -> Any:
    """Return labels as `fit` hands them on; refuse names, and one for all."""
    if not tf.is_tensor(y):
        values = np.asarray(y)
        if values.ndim == 0 or values.dtype.kind in "OSU":
            example = values.ravel()[:1].tolist()
            raise TypeError(
                f"Got `y` of {'names' if values.ndim else 'one value'}, {example}: "
                "expected the position of a class for every example, (B,), or one-hot "
                "rows (B, C). Use np.full(len(x), k) for the class k everywhere, and "
                "[class_names.index(name) for name in y] for names."
            )
    return as_fit_sees(y)


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
            "Pass a dataset to `explain`, or collect it into an array; for a model of several "
            "inputs pass a callable of the one to explain."
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
