"""Run the batches of a call side by side, where nobody can tell the difference."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import tensorflow as tf

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


def order_matters(function: Any) -> bool:
    """Tell whether two calls of a compiled function may depend on their order.

    Args:
        function: A `tf.types.experimental.ConcreteFunction`.

    Returns:
        Whether it, or a function it calls, writes variables, draws random numbers with
        a hidden state or runs Python code.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.attacks.calls.side_by_side import order_matters
        >>> noisy = tf.function(lambda: tf.random.normal(()))
        >>> order_matters(noisy.get_concrete_function())
        True
    """
    graph = function.graph.as_graph_def()
    bodies = [graph.node, *(inner.node_def for inner in graph.library.function)]
    return any(_ORDERED.match(node.op) for nodes in bodies for node in nodes)


def workers_for(values: int) -> int:
    """Return how many batches to work on at once.

    Args:
        values: Number of input values of a batch.

    Returns:
        1 on a GPU, in the scope of a distribution strategy and for large batches; else
        one more than there are cores, at most four.

    Example:
        >>> from keras_jsigr.attacks.calls.side_by_side import workers_for
        >>> workers_for(10**9)
        1
    """
    cores = os.cpu_count() or 1
    alone = (
        values > _SMALL
        or cores == 1
        or tf.distribute.has_strategy()
        or bool(tf.config.list_physical_devices("GPU"))
    )
    return 1 if alone else min(cores + 1, _MOST_WORKERS)


def side_by_side(call: Callable[[int], Any], count: int, workers: int) -> Iterator[Any]:
    """Yield `call(0)`, `call(1)`, ... in this order, several computed at once.

    The first error stops the rest: calls that have not begun are dropped.

    Args:
        call: May run in another thread.
        count: Number of calls.
        workers: Calls at once; with 1 there are no threads.

    Yields:
        The results.

    Example:
        >>> from keras_jsigr.attacks.calls.side_by_side import side_by_side
        >>> list(side_by_side(lambda i: i * i, 4, workers=2))
        [0, 1, 4, 9]
    """
    if workers == 1 or count == 1:
        yield from map(call, range(count))
        return
    pool = ThreadPoolExecutor(min(workers, count), thread_name_prefix="attack")
    try:
        yield from pool.map(call, range(count))
    finally:
        pool.shutdown(cancel_futures=True)
