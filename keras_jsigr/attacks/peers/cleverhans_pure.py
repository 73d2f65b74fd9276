"""Import cleverhans, and keep it free of hidden state while it is traced."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import tensorflow as tf

from keras_jsigr.attacks.search.usable_part import usable_part

_LOCK = threading.RLock()


def cleverhans_attack(method: str) -> Any:
    """Import an attack of cleverhans.

    Args:
        method: The name of the function and of its module.

    Returns:
        The function.

    Raises:
        ImportError: If cleverhans is missing.

    Example:
        >>> from keras_jsigr.attacks.peers.cleverhans_pure import cleverhans_attack
        >>> cleverhans_attack("nothing")
        Traceback (most recent call last):
        ImportError: ...
    """
    return getattr(_module(method), method)


def _module(name: str) -> Any:
    try:
        return importlib.import_module(f"cleverhans.tf2.attacks.{name}")
    except ImportError as error:
        raise ImportError(
            "CleverHansAttack needs cleverhans, which could not be imported: "
            f"{error}. Run pip install cleverhans."
        ) from error


@contextmanager
def pure(start: tf.Tensor) -> Iterator[list[tf.Tensor]]:
    """Keep cleverhans free of hidden state and NaN while it is traced.

    Its gradients come from one global `tf.function`, which would keep a trace of every
    model for ever: the plain function below it does the same. Its random start draws
    from TensorFlow's global state: `start` takes its place.

    Args:
        start: Float32 `(B, *S)`, the perturbation that a random start shall have.

    Yields:
        A list that collects, per gradient, bool `(B,)`: it was finite.
    """
    modules = (_module("fast_gradient_method"), _module("momentum_iterative_method"))
    plain = modules[0].compute_gradient.python_function
    healthy: list[tf.Tensor] = []

    def compute_gradient(*args: Any) -> tf.Tensor:
        gradient, whole = usable_part(plain(*args))
        healthy.append(whole)
        return gradient

    def random_lp_vector(*_: Any, **__: Any) -> tf.Tensor:
        return start

    with _LOCK, ExitStack() as stack:
        for module in modules:
            stack.enter_context(_replaced(module, compute_gradient))
        pgd = _module("projected_gradient_descent")
        stack.enter_context(_replaced(pgd, random_lp_vector))
        yield healthy


@contextmanager
def _replaced(module: Any, function: Any) -> Iterator[None]:
    name = function.__name__
    before = getattr(module, name)
    setattr(module, name, function)
    try:
        yield
    finally:
        setattr(module, name, before)
