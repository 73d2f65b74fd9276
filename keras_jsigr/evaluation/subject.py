"""The model under evaluation: its gradient, what it is asked, and its variables."""

from __future__ import annotations

import dataclasses
import functools
import types
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from keras_jsigr.core.batching import open_batch, probe_rows
from keras_jsigr.core.logits import as_logits


class NoGradient(NamedTuple):
    """Why a model has no gradient; `python`: it runs code TensorFlow cannot see."""

    reason: str
    python: bool


def find_no_gradient(model: Any, x: Any) -> NoGradient | None:
    """Tell why no gradient reaches the input, or `None` if one does."""
    probe = probe_rows(x)
    logits_fn = as_logits(model, probe)
    try:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(probe)
            energy = tf.reduce_sum(tf.square(logits_fn(probe)))
        gradient = tape.gradient(energy, probe)
    except Exception:  # of an operation without a derivative, or of its code
        gradient = None
    # TensorFlow returns a scalar for a `tf.py_function` that its tape does not see.
    if gradient is not None and gradient.shape == probe.shape:
        return None
    run = tf.function(logits_fn, autograph=False)
    graph = run.get_concrete_function(open_batch(probe)).graph.as_graph_def()
    nodes = [graph.node, *(inner.node_def for inner in graph.library.function)]
    python = any(node.op.endswith("PyFunc") for part in nodes for node in part)
    reason = (
        "The model has code that TensorFlow cannot differentiate (tf.numpy_function or "
        "tf.py_function), so it has no gradient."
        if python
        else "No gradient passes through the model's operations (rounding, thresholds, "
        "argmax, casts to integers)."
    )
    return NoGradient(reason, python)


class CountedModel:
    """A callable that counts the examples it is asked about, in programs too."""

    def __init__(self, model: Any, limit: int | None = None) -> None:
        self.model, self.limit = model, limit
        self._asked = tf.Variable(0, dtype=tf.int64, trainable=False)

    def __call__(self, x: Any) -> Any:
        """Answer as the model does."""
        self._asked.assign_add(tf.cast(tf.shape(x)[0], tf.int64))
        return self.model(x)

    @property
    def asked(self) -> int:
        """How many examples it was asked about."""
        return int(self._asked)

    def can_answer(self, questions: float) -> bool:
        """Tell whether so many questions are left of the limit."""
        return self.limit is None or self.asked + questions <= self.limit

    def affordable(self, attack: Any, examples: int, share: int = 1) -> Any:
        """Return an attack on so many examples for a share of what is left, or None."""
        if self.limit is None or not examples:
            return attack
        # Besides the search: tries of the compiler, and two looks at each point.
        left = (self.limit - self.asked) / share - 64 - 3 * examples
        each = int(left // examples)
        if attack.passes <= each:
            return attack
        try:
            return dataclasses.replace(attack, queries=each)
        except (TypeError, ValueError):  # no such setting, or too few for the method
            return None


def layers_in(subject: Any) -> list[keras.Layer]:
    """Find the Keras models and layers that a callable holds or names."""
    found, seen, todo = [], set(), [(subject, 0)]
    while todo:
        item, depth = todo.pop()
        if id(item) in seen or depth > 6:
            continue
        seen.add(id(item))
        if isinstance(item, keras.Layer):
            found.append(item)
        else:
            todo += [(part, depth + 1) for part in _parts(item)]
    return found


def given_models(models: Any) -> list[Any]:
    """List the models of an argument, whose check is still to come."""
    if isinstance(models, dict):
        return list(models.values())
    return list(models) if isinstance(models, list | tuple) else []


def _parts(item: Any) -> Iterable[Any]:
    """List what a callable, or a plain object, is made of."""
    if isinstance(item, functools.partial):
        return [item.func, *item.args, *item.keywords.values()]
    if isinstance(item, types.MethodType):
        return [item.__self__, item.__func__]
    if isinstance(item, types.FunctionType):
        held: list[Any] = []
        for cell in item.__closure__ or ():
            with suppress(ValueError):  # assigned later
                held.append(cell.cell_contents)
        held += [*(item.__defaults__ or ()), *(item.__kwdefaults__ or {}).values()]
        named = [item.__globals__.get(name) for name in _names(item.__code__)]
        return [*held, *named, *vars(item).values()]
    if isinstance(item, list | tuple | set):
        return list(item)[:100]
    if isinstance(item, dict):
        return list(item.values())[:100]
    plain = isinstance(item, types.ModuleType | type | np.ndarray) or tf.is_tensor(item)
    return [] if plain else list(getattr(item, "__dict__", {}).values())


def _names(code: types.CodeType) -> list[str]:
    inner = [c for c in code.co_consts if isinstance(c, types.CodeType)]
    return [*code.co_names, *(name for each in inner for name in _names(each))]


@contextmanager
def unchanged(*models: Any) -> Iterator[list[str]]:
    """Put back the variables of models at the end; list which had changed.

    Seeds are put back too, but not listed: that they change is what they are for.
    """
    layers = [layer for model in models for layer in layers_in(model)]
    variables = {id(v): v for layer in layers for v in layer.variables}
    before = [(v, np.array(v)) for v in variables.values()]
    changed: list[str] = []
    try:
        yield changed
    finally:
        for variable, value in before:
            if np.asarray(variable).tobytes() != value.tobytes():
                variable.assign(value)
                if "seed" not in variable.name:
                    changed.append(variable.path)
