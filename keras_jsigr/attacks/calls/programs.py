"""Compiled functions, kept per model and never keeping a model alive."""

from __future__ import annotations

import types
import weakref
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from keras_jsigr.attacks.calls.side_by_side import order_matters
from keras_jsigr.core.logits import LogitsFn, as_logits


@dataclass(frozen=True)
class Program:
    """A compiled function of one model.

    Attributes:
        run: The function, with any batch size.
        classes: The number of logits of the model.
        ordered: Whether calls must come one after the other, see `order_matters`.
    """

    run: Callable[..., Any]
    classes: int
    ordered: bool


Build = Callable[[LogitsFn, tf.Tensor, int], tuple[Callable[..., Any], list[Any]]]


def never_empty(logits_fn: LogitsFn) -> LogitsFn:
    """Ask a model about one row of zeros instead of an empty batch.

    Attacks drop the examples that are done, and TensorFlow's fused convolutions on the
    CPU fail on the empty batch that may remain.

    Args:
        logits_fn: Maps `(B, *S)` to `(B, C)`.

    Returns:
        The same function, for `B = 0` too.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.attacks.calls.programs import never_empty
        >>> never_empty(lambda x: x / tf.reduce_max(x))(tf.zeros((0, 2))).shape
        TensorShape([0, 2])
    """

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
    return Program(run, classes, order_matters(run))


class Programs:
    """Keep compiled functions per model, as long as the model lives.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.attacks.calls.programs import Programs
        >>> programs, model = Programs(), lambda x: x
        >>> build = lambda f, probe, classes: (f, [tf.TensorSpec((1, 2))])
        >>> first = programs.get("logits", build, model, tf.zeros((1, 2)))
        >>> first is programs.get("logits", build, model, tf.zeros((1, 2)))
        True
    """

    def __init__(self) -> None:
        self._by_owner: weakref.WeakKeyDictionary[Any, dict[Hashable, Program]] = (
            weakref.WeakKeyDictionary()
        )

    def get(self, name: str, build: Build, model: Any, probe: tf.Tensor) -> Program:
        """Return the program `name` for a model and a sample shape; compile it once.

        Args:
            name: Tells apart the programs of one model.
            build: Takes logits function, probe and number of classes; returns the
                function to compile and its signature.
            model: A Keras model or a callable.
            probe: A few examples, float `(n, *S)`.

        Returns:
            The program.
        """
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
        """Drop the programs of models, which may have changed since.

        Args:
            *models: Keras models or callables.
        """
        for model in models:
            try:
                self._by_owner.pop(_owner_of(model), None)
            except TypeError:  # of it nothing is kept
                continue

    def __reduce__(self) -> tuple[type[Programs], tuple[()]]:
        # Copies and pickles of an attack start with nothing compiled.
        return Programs, ()


def _owner_of(model: Any) -> Any:
    return model.__self__ if isinstance(model, types.MethodType) else model
