"""A network as a function of one of its inputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras


def of_one_input(
    forward: Callable[[Any], Any], x: Any, index: int
) -> Callable[[Any], Any]:
    """Return `forward` as a function of one input, the others as they are in `x`.

    Args:
        forward: Function of inputs in the structure of `x`.
        x: A batch.
        index: Position of the input among the flattened ones.

    Returns:
        A function of a tensor that stands in the place of that input.

    Example:
        >>> from keras_jsigr.checks.one_input import of_one_input
        >>> of_one_input(lambda x: x["a"] - x["b"], {"a": 5, "b": 2}, 1)(4)
        1
    """
    leaves = keras.tree.flatten(x)

    def network(value: Any) -> Any:
        full = [*leaves[:index], value, *leaves[index + 1 :]]
        return forward(keras.tree.pack_sequence_as(x, full))

    return network
