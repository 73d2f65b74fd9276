"""A public function of TensorFlow, exchanged for a better one inside blocks."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


class Exchanged:
    """Make blocks in which a function of a module is another one.

    Keras calls TensorFlow by names such as `tf.nn.moments`, so that the one place to
    change what its layers compute is that name. Blocks may nest and may run in several
    threads (the replicas of a distribution strategy): the function is put back when the
    last of them ends.

    Args:
        module: What holds the function.
        name: Its name there.
        replacement: Returns, given the function it stands for, what is put there.

    Example:
        >>> import types
        >>> from keras_jsigr.core.exchanged import Exchanged
        >>> module = types.SimpleNamespace(double=lambda x: 2 * x)
        >>> quadruple = Exchanged(
        ...     module, "double", lambda double: lambda x: double(double(x))
        ... )
        >>> with quadruple.block():
        ...     module.double(3)
        12
        >>> module.double(3)
        6
    """

    def __init__(
        self,
        module: Any,
        name: str,
        replacement: Callable[[Callable[..., Any]], Callable[..., Any]],
    ) -> None:
        self._module, self._name, self._replacement = module, name, replacement
        self._lock, self._depth = threading.RLock(), 0
        self._original: Any = None

    @contextmanager
    def block(self) -> Iterator[None]:
        """Exchange the function inside the block.

        Yields:
            Nothing.
        """
        with self._lock:
            if self._depth == 0:
                self._original = getattr(self._module, self._name)
                setattr(self._module, self._name, self._replacement(self._original))
            self._depth += 1
        try:
            yield
        finally:
            with self._lock:
                self._depth -= 1
                if self._depth == 0:
                    setattr(self._module, self._name, self._original)
